"""`Classifier`: a loaded bundle that is called with texts, like a text-classification pipeline of transformers.

`toolchain.load` returns one. A single worker thread opens, runs and closes the runtime, because TensorRT contexts and
CUDA graphs work only in the thread that created them. So a classifier may be called from any thread on every backend.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import EllipsisType, TracebackType
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from toolchain.base.progress import Advance
from toolchain.base.tensors import Infer, Logits
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Text
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.stages import run_choices
from toolchain.evaluation.target import Target
from toolchain.records.prediction import Answer, Prediction
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run_texts

Row = str | tuple[str, ...] | Mapping[str, str]
"""One row: a text, a pair `(text, text_pair)`, or `{"text": ..., "text_pair": ...}`."""


class Classifier:
    """A model that is ready to classify texts.

        with toolchain.load("engines/build/demo-demo-int8") as classifier:
            classifier(["a gripping film", "two hours of my life"])

    Any number of rows is accepted. They are sorted by length and batched with almost no padding, and no more than 8192
    of them are tokenized at a time. Rows are truncated to the bundle's `max_length`.

    It may be called from several threads: the calls run one after the other.

    Attributes:
        labels: names of the classes in the order of the logits; for a regression, the name of its one output.
        target: the `Target` that runs, with its backend, device, file and precision.
    """

    def __init__(self, target: Target) -> None:
        """Open the runtime of `target`.

        Raises:
            ToolchainError: a file is damaged, or this machine lacks the backend or the device; see errors.py.
        """
        self.target = target
        self.head = target.resolved.head
        self.labels = [*self.head.labels]
        self._columns = target.resolved.head.texts_per_row
        self._runtime = ExitStack()
        self._closed = False
        self._worker = ThreadPoolExecutor(1, "classifier")
        try:
            self._infer = self._worker.submit(self._open).result()
        except BaseException:
            self._worker.shutdown()
            raise

    @overload  # a str is also an iterable of str, so the first matching signature counts
    def __call__(self, rows: Row, *, top_k: int | None = ...) -> list[Answer]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, rows: Iterable[Row]) -> list[Answer]: ...

    @overload
    def __call__(self, rows: Iterable[Row], *, top_k: int | None) -> list[list[Prediction]]: ...

    def __call__(
        self, rows: Row | Iterable[Row], *, top_k: int | EllipsisType | None = ...
    ) -> list[Answer] | list[Prediction] | list[list[Prediction]]:
        """Return the best label of each row with its score or, with `top_k`, its `top_k` best labels.

        The result has the form that a transformers pipeline returns: a list with one prediction per row, also for a
        single text. With `top_k`, it is a list of predictions for a single row, and a list of such lists for several
        rows. (A single pair also gives a list; transformers returns a bare dictionary.) If a row was truncated, its
        predictions have the key `truncated`.

        Without `top_k`, a multi-label model returns all labels whose score reaches the threshold, and the scores of all
        labels: `{"labels": [...], "scores": {...}}`. A model that tags words returns the entities of the text:
        `{"entities": [{"label": ..., "score": ..., "start": ..., "end": ..., "text": ...}]}`.

        Args:
            rows: a text, a pair as a tuple or as `{"text": ..., "text_pair": ...}`, or any iterable of these. A tuple
                is always one row. An iterator is read a window of rows at a time.
            top_k: the number of labels for each row, best first; None for all of them.

        Raises:
            InputError: the classifier is closed.
            UsageError: a row is not a text, or not a pair where the task needs one; or `top_k` is below 1.
        """
        if isinstance(top_k, int) and top_k < 1:
            raise UsageError(f"top_k={top_k}: too small. Give 1 or more, or None for all labels.")
        single = isinstance(rows, str | tuple | Mapping)
        given: Iterable[Row] = [rows] if single else rows  # type: ignore[list-item]  # as `single` says
        given = [*given] if self.head.join else given  # entities need the texts again after the run
        logits, cut = self.run(given)
        if top_k is ...:
            head = self.head.about([_parts(row) for row in given]) if self.head.join else self.head
            answers = head.answers(logits)
            for index in np.flatnonzero(cut).tolist():
                answers[index]["truncated"] = True
            return answers
        best = self.head.best(logits, top_k)
        for row in np.flatnonzero(cut):
            best[row] = [{**found, "truncated": True} for found in best[row]]
        return best[0] if single else best

    def logits(self, rows: Iterable[Row], *, advance: Advance = lambda rows: None) -> Logits:
        """Return the logits of rows, float32 [rows, classes], in the order of the rows.

        `advance` is called after each batch with its number of rows, to show the progress.

        Raises:
            InputError: the classifier is closed.
            UsageError: a row is not a text, or not a pair where the task needs one.
        """
        return self.run(rows, advance=advance)[0]

    def run(self, rows: Iterable[Row], *, advance: Advance = lambda rows: None) -> tuple[Logits, NDArray[np.bool_]]:
        """Return the logits of rows, and which rows were truncated to the bundle's `max_length`, bool [rows].

        The arguments and the errors are those of `logits`.
        """
        if self._closed:
            raise InputError("the classifier is closed. Load the bundle again.")
        return self._worker.submit(self._run, rows, advance).result()

    def close(self) -> None:
        """Wait for a running call, then free the runtime. A second `close` does nothing."""
        if not self._closed:
            self._closed = True
            self._worker.submit(self._runtime.close).result()
            self._worker.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        target = self.target
        return f"<Classifier of {target.resolved.source.name}: {target.backend} {target.variant} on {target.device}>"

    def _open(self) -> Infer:
        target = self.target
        if not target.remote:  # loading takes seconds, so it is done before the runtime is open and timed
            _ = target.resolved.tokenizer
        return self._runtime.enter_context(open_runtime(target.backend, target.model, **run_choices(target)))

    def _run(self, rows: Iterable[Row], advance: Advance) -> tuple[Logits, NDArray[np.bool_]]:
        texts = self._texts(rows)
        first = next(texts, None)
        if first is None:
            return np.empty((0, *(size or 0 for size in self.head.row)), np.float32), np.empty(0, bool)
        cut: list[NDArray[np.bool_]] = []

        def encode(texts: list[Text]) -> Tokens:
            tokens = self.target.encode(texts)
            cut.append(self.target.resolved.find_cut(texts, tokens.lengths))
            return tokens

        def every() -> Iterator[Text]:
            yield first
            yield from texts

        return run_texts(self._infer, encode, every(), advance=advance).logits, np.concatenate(cut)

    def _texts(self, rows: Iterable[Row]) -> Iterator[Text]:
        for number, row in enumerate(rows, 1):
            parts = _parts(row)
            if len(parts) != self._columns or not all(isinstance(part, str) for part in parts):
                wanted = (
                    "a text for each row"
                    if self._columns == 1
                    else "a pair of texts for each row: a tuple, or {'text': ..., 'text_pair': ...}"
                )
                raise UsageError(
                    f"row {number}, {row!r:.100}: the task takes {wanted}. Give one such row, or a list of such rows."
                )
            yield parts


def _parts(row: Row) -> Text:
    """Return the texts of a row, or an empty tuple if `row` is not a text, a tuple or a mapping."""
    if isinstance(row, str):
        return (row,)
    if isinstance(row, Mapping):
        return tuple(row[key] for key in ("text", "text_pair") if key in row)
    return row if isinstance(row, tuple) else ()
