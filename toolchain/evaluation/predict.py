"""Predictions for texts, in the order of the rows. Rows are read and predicted in parts that fit into memory."""

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from toolchain.base.files import writing
from toolchain.base.progress import Advance
from toolchain.data.rows import Text
from toolchain.errors import InputError, TextError, UsageError
from toolchain.evaluation.classifier import Classifier
from toolchain.records.plain import cell, printable
from toolchain.records.prediction import Answer, PredictedRow
from toolchain.runtimes.batched import WINDOW_ROWS

log = logging.getLogger(__name__)

# Number of rows that are read from a file, and whose predictions are written, at once. They are several windows, so
# that the next window can be tokenized while one runs.
PART_ROWS = 4 * WINDOW_ROWS


def predict(
    classifier: Classifier, parts: Iterable[list[Text]], *, source: str = "TEXT", advance: Advance = lambda rows: None
) -> Iterator[list[PredictedRow]]:
    """Yield a list of predictions for each part of the rows: one prediction per row, in the order of the rows.

    Messages call the origin of the rows `source`, such as the name of a file.

    Raises:
        InputError: the rows cannot be read, a text has no token, or the classifier is closed.
    """
    cut = rows = 0
    for texts in parts:
        try:
            logits, too_long = classifier.run(texts, advance=advance)
        except TextError as error:
            raise InputError(f"{source}: row {rows + texts.index(error.text) + 1}: {error}") from None
        answers = classifier.head.about(texts).answers(logits)
        yield [_row(text, answer) for text, answer in zip(texts, answers, strict=True)]
        cut, rows = cut + int(too_long.sum()), rows + len(texts)
    if cut:
        limit = classifier.target.resolved.max_length
        log.warning("%d of %d rows are longer than %d tokens, and the model does not see their ends", cut, rows, limit)


def _row(text: Text, answer: Answer) -> PredictedRow:
    return cast(PredictedRow, {**dict(zip(("text", "text_pair"), text, strict=False)), **answer})


def save(predicted: Iterable[list[PredictedRow]], file: Path) -> int:
    """Write predictions to a file, in the format that its suffix names, and return the number of rows.

    `predicted` may compute the predictions while they are written. After an error, there is no incomplete file.

    Raises:
        UsageError: the suffix is not one of FORMATS.
        InputError: see `predict`.
    """
    form, count = format_of(file), 0
    with writing(file) as kept:
        for rows in predicted:
            kept.write(form(rows, header=not count))
            count += len(rows)
    return count


def json_lines(rows: list[PredictedRow], *, header: bool = False) -> bytes:
    """Return rows as JSON lines, one object per row. `header` has no effect."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def csv_lines(rows: list[PredictedRow], *, header: bool = False) -> bytes:
    """Return rows as CSV whose columns are the keys of PredictedRow; a regression has no column `label`.

    `cell` puts a quote before a text that a spreadsheet would take for a formula.
    """
    kept = [{key: cell(_flat(value)) for key, value in row.items() if value is not None} for row in rows]
    text = io.StringIO()
    if kept:
        writer = csv.DictWriter(text, list(kept[0]), lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(kept)
    return text.getvalue().encode()


def plain_lines(rows: list[PredictedRow], *, header: bool = False) -> bytes:
    """Return one line of text per row for a terminal: label, score and texts, separated by tabs.

    If a row has several labels, commas separate them and their scores. A dash means that a row has no label.
    """
    return b"".join("\t".join(_plain(row)).encode() + b"\n" for row in rows)


def _plain(row: PredictedRow) -> list[str]:
    texts = [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]
    if "embedding" in row:
        answer = [json.dumps([round(value, 4) for value in row["embedding"]])]
    elif "entities" in row:
        found = [(one["text"], one["label"], f"{one['score']:.4f}") for one in row["entities"]]
        answer = [", ".join(map(" ".join, found)) or "-"]
    elif "labels" in row:
        chosen = [(label, f"{row['scores'][label]:.4f}") for label in row["labels"]]
        answer = [", ".join(column) for column in zip(*chosen, strict=True)] or ["-", "-"]
    else:
        answer = [*([row["label"]] if row["label"] is not None else []), f"{row['score']:.4f}"]
    return [printable(" ".join(part.split())) for part in (*answer, *texts)]


def _flat(value: Any) -> Any:
    """Return a value of a row as one CSV cell: a list or a dictionary becomes JSON, other values stay as they are."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


class Format(Protocol):
    """A function that turns rows into bytes of a file; `header` asks for a first line with the names of the columns."""

    def __call__(self, rows: list[PredictedRow], *, header: bool = False) -> bytes: ...


FORMATS: dict[str, Format] = {".csv": csv_lines, ".jsonl": json_lines}


def format_of(file: Path) -> Format:
    """Return the function that writes the format which a file's suffix names.

    Raises:
        UsageError: the suffix is not one of FORMATS.
    """
    if file.suffix not in FORMATS:
        raise UsageError(f"--output {file}: the suffix does not name a format. Give {' or '.join(FORMATS)}.")
    return FORMATS[file.suffix]
