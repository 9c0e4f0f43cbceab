"""Labels for texts: rows in, predictions out, in the same order and in parts that fit into memory."""

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

# Rows that are read from a file, and whose predictions are written, at once. Several windows, so that the next one is
# tokenized while one runs.
PART_ROWS = 4 * WINDOW_ROWS


def predict(
    classifier: Classifier, parts: Iterable[list[Text]], *, source: str = "TEXT", advance: Advance = lambda rows: None
) -> Iterator[list[PredictedRow]]:
    """Yield the predictions of each part, one for each of its rows and in their order.

    `source` names where the rows are from in messages.

    Raises:
        InputError: as reading the parts does; a text has no token; or the classifier is closed.
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
    """Write predictions to a file in the format of its suffix, whole or not at all; return the number of rows.

    Raises:
        UsageError: the suffix names no format.
        InputError: as reading the rows does.
    """
    form, count = format_of(file), 0
    with writing(file) as kept:
        for rows in predicted:
            kept.write(form(rows, header=not count))
            count += len(rows)
    return count


def json_lines(rows: list[PredictedRow], *, header: bool = False) -> bytes:
    """Return one JSON object a line."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def csv_lines(rows: list[PredictedRow], *, header: bool = False) -> bytes:
    """Return CSV with the keys of PredictedRow as columns and texts written by `cell`; a regression lacks a label."""
    kept = [{key: cell(_flat(value)) for key, value in row.items() if value is not None} for row in rows]
    text = io.StringIO()
    if kept:
        writer = csv.DictWriter(text, list(kept[0]), lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(kept)
    return text.getvalue().encode()


def plain_lines(rows: list[PredictedRow], *, header: bool = False) -> bytes:
    """Return one line for each row, for a person: label, score and texts, with tabs between.

    Several labels are joined by commas, as are their scores; a dash stands for none.
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
    """Return the value of a key of a row as one cell: a list or an object as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


class Format(Protocol):
    """Turns rows into the bytes of a file, with a header before them if that is asked for."""

    def __call__(self, rows: list[PredictedRow], *, header: bool = False) -> bytes: ...


FORMATS: dict[str, Format] = {".csv": csv_lines, ".jsonl": json_lines}


def format_of(file: Path) -> Format:
    """Return the format that a file's suffix names.

    Raises:
        UsageError: it names none.
    """
    if file.suffix not in FORMATS:
        raise UsageError(f"--output {file}: the suffix does not name a format. Give {' or '.join(FORMATS)}.")
    return FORMATS[file.suffix]
