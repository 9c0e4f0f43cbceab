"""Reads rows of text and label, from a user's table, the Hugging Face hub, or the demo's files in this package."""

import contextlib
import dataclasses
import datetime
import decimal
import functools
import hashlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from toolchain.base.files import sha256_json
from toolchain.base.progress import still
from toolchain.data import hub
from toolchain.data.table_file import Table, read_parts, refuse_quotes
from toolchain.data.tables import (
    MissingSplitError,
    from_dataset,
    is_single,
    read_single,
    read_split,
    require_columns,
    splits,
)
from toolchain.data.tasks import Task
from toolchain.data.words import words_and_tags
from toolchain.errors import InputError, MachineError, TextError, UsageError, first_line
from toolchain.recipe import Reading

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent

# The splits into which `--validation-share` divides a table.
TRAIN, VALIDATION = "train", "validation"

# The text of a row, or the two texts of a pair.
Text = tuple[str, ...]

# Cell in the column of a single label -> whether the row has this label.
MARKS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}

# Type of a cell that is not a text, its name in messages, and advice. The first type that fits is used.
FOREIGN: tuple[tuple[type | tuple[type, ...], str, str], ...] = (
    (list, "a list", "Write one text in each row, or join lists of texts or chat turns with --text-join ' '"),
    (dict, "an object", "Write its text in a column of its own"),
    (bytes, "bytes", "Decode them to text"),
    (bool, "a boolean", "Name the text column with --text-column"),
    ((datetime.date, datetime.time, datetime.timedelta), "a date", "Name the text column, or write dates as text"),
    ((int, float, decimal.Decimal), "a number", "Name the text column, or write numbers as text"),
)

# Up to this number of rows may be known by chance, whatever fraction of all rows they are.
CHANCE_ROWS = 2


@dataclass(frozen=True)
class Rows:
    """The rows of one split, in the order of the file.

    `source` names the file or the data set in messages. Labels are as they were read: text, numbers or lists;
    `label_names` are the class names for numbers, if the table has them. `numbers` are the rows' numbers in the file,
    from 1; None if no row of the file is left out. `queries` are the rows' query names, if the task has such a column.
    """

    source: str
    texts: list[Text]
    labels: list[Any]
    label_names: tuple[str, ...] = ()
    numbers: tuple[int, ...] | None = None
    queries: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def number(self, index: int) -> int:
        """Return the number of a row in its file, from 1."""
        return self.numbers[index] if self.numbers else index + 1

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Rows":
        """Return the rows at `indices`, in that order."""
        chosen = [int(index) for index in indices]
        return dataclasses.replace(
            self,
            texts=[self.texts[index] for index in chosen],
            labels=[self.labels[index] for index in chosen],
            numbers=tuple(self.number(index) for index in chosen),
            queries=self.queries and [self.queries[index] for index in chosen],
        )

    def sample(self, count: int, *, seed: int) -> "Rows":
        """Return `count` random rows, or all if there are fewer, in the file's order."""
        generator = np.random.default_rng(seed)
        return self.take(np.sort(generator.choice(len(self), size=min(count, len(self)), replace=False)))

    @property
    def digest(self) -> str:
        """The SHA-256 of texts and labels. It does not depend on where the rows were read from."""
        return sha256_json([self.texts, [str(label) for label in self.labels]])

    @functools.cached_property
    def text_digests(self) -> list[str]:
        """A short digest of each row's text, to recognise rows without keeping their text.

        Texts that differ only in case, white space or the normal form of Unicode have the same digest.
        """
        return [digest for digest, _ in self._digests]

    @functools.cached_property
    def _digests(self) -> list[tuple[str, str]]:
        """Two digests for each row: of its text, and of the pair with its texts exchanged (equal for a single text)."""
        folded = ([" ".join(normalize("NFC", part).lower().split()) for part in text] for text in self.texts)
        found = []
        for text in folded:
            digest = sha256_json(text)[:16]
            found.append((digest, digest if len(text) == 1 else sha256_json(text[::-1])[:16]))
        return found

    def among(self, digests: Collection[str]) -> NDArray[np.bool_]:
        """Return for each row whether the digest of its text is in `digests`, bool [rows]; pairs match in any order."""
        known = set(digests)
        return np.array([not known.isdisjoint(both) for both in self._digests], bool)

    def count_known(self, digests: Collection[str], *, most: float, why: str) -> int:
        """Return how many rows have a text that other data have too. `digests` are the text digests of the other data.

        Raises:
            InputError: these are more than 2 and more than the fraction `most` of all rows; `why` ends the message.
        """
        known = int(self.among(digests).sum())
        if known > max(CHANCE_ROWS, most * len(self)):
            raise InputError(f"{self.source}: {known:,} of these {len(self):,} rows {why}")
        return known

    def without(self, digests: Collection[str]) -> "Rows":
        """Return the rows whose text is not in `digests` and not in an earlier row; pairs match in either order."""
        seen = set(digests)
        fresh = []
        for index, both in enumerate(self._digests):
            if seen.isdisjoint(both):
                seen.update(both)
                fresh.append(index)
        return self.take(fresh)

    @contextlib.contextmanager
    def placed(self) -> Iterator[None]:
        """Name the file and the row if the `with` block finds a text that the model cannot process.

        Raises:
            InputError: the block raised a TextError. The message has the file, the row and the reason.
        """
        try:
            yield
        except TextError as error:
            number = self.number(next(at for at, text in enumerate(self.texts) if set(error.text) <= set(text)))
            raise InputError(f"{self.source}: row {number}: {error}") from None


def load_rows(task: Task, split: str, **reading: Unpack[Reading]) -> Rows:
    """Read one split of a task from the file or folder that `reading["data"]` names, or else from the task's own data.

    If it is a single file, either `split_column` names the column with each row's split, or `validation_share`
    divides the rows into train and validation. `validation_share` also divides a folder that has only `train`.

    Raises:
        MissingSplitError: the data lack the split.
        InputError: the file or a column is missing, a text cell is empty or not a text, or the file has no rows or
            cannot be read.
        UsageError: the hub's data set lacks the split.
        MachineError: the hub is needed and cannot be reached.
    """
    data = reading.get("data")
    if data is None and task.folder is None and task.hub:
        return _rows(_from_hub(task, split), task, reading)
    if data is None and task.folder is None:
        raise InputError(f"--task {task.name}: the task has no data of its own. Give your data with --data.")
    place = Path(data) if data else PACKAGE / str(task.folder)
    share = reading.get("validation_share")
    if is_single(place):
        table = read_single(place)
        if column := reading.get("split_column"):
            return _of_column(table, task, split, column, reading)
        if share is None:
            raise InputError(
                f"--data {place}: this is one table, without splits. Name the column that has each row's split with "
                "--split-column, or use a fraction of the rows for validation with --validation-share 0.2."
            )
        return _shared(_rows(table, task, reading), split, share)
    if reading.get("split_column"):
        raise InputError(f"--split-column: --data {place} is a folder with one file per split. Leave the option out.")
    if share is None or not place.is_dir() or (split not in (TRAIN, VALIDATION) and split in splits(place)):
        return _rows(read_split(place, split), task, reading)
    if VALIDATION in splits(place):
        raise InputError(f"--validation-share {share:g}: {place} has a validation split already. Leave the option out.")
    return _shared(_rows(read_split(place, TRAIN), task, reading), split, share)


def load_all(task: Task, **reading: Unpack[Reading]) -> Rows:
    """Return all rows if `data` is one table, or the split train if it is a folder. For errors, see `load_rows`."""
    place = Path(str(reading.get("data")))
    return _rows(read_single(place) if is_single(place) else read_split(place, TRAIN), task, reading)


def read_texts(file: Path, columns: Sequence[str], *, rows: int, text_join: str | None = None) -> Iterator[list[Text]]:
    """Read the text columns of a table's file and yield its rows in order, as lists of at most `rows` rows.

    Only one such list is in memory. Neither labels nor splits are read.

    Raises:
        InputError: a column is missing, a cell is empty or not a text, or the file cannot be read.
    """
    part = Table(str(file), {})
    for part in read_parts(file, rows):
        require_columns(part, [*columns], advice="Name the columns with --text-column A[,B].")
        refuse_quotes(part)
        texts = [_texts(part, column, text_join) for column in columns]
        yield list(zip(*texts, strict=True))
    require_columns(part, [])


def _of_column(table: Table, task: Task, split: str, column: str, reading: Reading) -> Rows:
    """Return the rows whose cell in the column `column` is `split`."""
    require_columns(table, [column])
    cells = table.columns[column]
    if None in cells:
        raise InputError(f"{table.source}: row {cells.index(None) + 1} has no split in {column!r}. Fill the cell.")
    chosen = [index for index, cell in enumerate(cells) if str(cell) == split]
    if not chosen:
        found = ", ".join(map(repr, dict.fromkeys(map(str, cells))))
        raise MissingSplitError(
            f"{table.source}: no row has {split!r} in the column {column!r}, which has only {found:.200}. "
            "Write train or validation in that column, or choose another split with --split."
        )
    return _rows(table.take(chosen), task, reading)  # rows of other splits may lack labels, so they are not read


def _shared(rows: Rows, split: str, share: float) -> Rows:
    """Return the rows of the split train or validation; validation gets about the fraction `share` of all rows.

    A hash of the text decides which split a row is in. So equal texts, and a pair in either order, are in the same
    split, and a row stays in its split when other rows are added.
    """
    if split not in (TRAIN, VALIDATION):
        raise MissingSplitError(f"{rows.source}: --validation-share makes no split {split}. Use train or validation.")
    places = [_place(min(both)) for both in rows._digests]
    chosen = [index for index, place in enumerate(places) if (place < share) == (split == VALIDATION)]
    if not chosen:
        raise InputError(f"{rows.source}: --validation-share {share:g} leaves no row for {split}. Give another value.")
    return rows.take(chosen)


def _place(digest: str) -> float:
    """Return a number in [0, 1) for a digest; different digests give uniformly distributed numbers."""
    return int.from_bytes(hashlib.sha256(digest.encode()).digest()[:7], "big") / 2**56


def _rows(table: Table, task: Task, reading: Reading) -> Rows:
    """Return the texts, labels and queries of a table, from the columns that the task names.

    Raises:
        InputError: a column is missing, a cell is empty, a text cell is not a text, or a tsv is quoted like a csv.
    """
    label = task.label_column
    query = [task.query_column] if task.query_column else []
    labelled = task.label_columns or ((label,) if label else ())  # documents of a language model have no labels
    require_columns(table, [*task.text_columns, *labelled, *query])
    if not task.hub:  # in GLUE's files, such quotes are part of the text
        refuse_quotes(table)
    names = tuple(table.class_names.get(label, ()))
    if task.head == "tokens":
        for column in (*task.text_columns, label):
            _refuse_holes(table, column)
        words, tags = words_and_tags(table, task.text_columns[0], label)
        return Rows(table.source, [(text,) for text in words], tags, names, table.numbers)
    texts = [_texts(table, column, reading.get("text_join")) for column in task.text_columns]
    if task.label_columns:
        labels: list[Any] = _marked(table, task.label_columns)
    elif label:
        _refuse_holes(table, label)
        labels = table.columns[label]
    else:
        labels = [None] * len(table)
    for column in query:
        _refuse_holes(table, column)
    queries = table.columns[query[0]] if query else None
    return Rows(table.source, list(zip(*texts, strict=True)), labels, names, table.numbers, queries)


def _marked(table: Table, columns: Sequence[str]) -> list[list[str]]:
    """Return for each row its labels: the names of the columns in which the row has 1.

    Raises:
        InputError: a cell is neither 0 nor 1.
    """
    found: list[list[str]] = [[] for _ in range(len(table))]
    for column in columns:
        _refuse_holes(table, column)
        for row, cell in enumerate(table.columns[column]):
            mark = MARKS.get(str(cell).strip().lower())
            if mark is None:
                raise InputError(
                    f"{table.source}: row {table.number(row)}, column {column!r}: {cell!r:.60} is neither 0 nor 1. "
                    "Write 1 if the row has this label, and 0 if it does not."
                )
            if mark:
                found[row].append(column)
    return found


def _refuse_holes(table: Table, column: str) -> None:
    for index, cell in enumerate(table.columns[column]):
        if cell is None or cell != cell:  # NaN is the only number that differs from itself
            raise InputError(
                f"{table.source}: row {table.number(index)} has an empty cell in the column {column!r}. "
                "Fill the cell, or remove the row."
            )


def _texts(table: Table, column: str, join: str | None) -> list[str]:
    """Return the texts of a column. If `join` is given, it joins the texts or chat turns of a cell that is a list.

    Raises:
        InputError: a cell is empty, is not a text, or has half of a surrogate pair, which no tokenizer takes.
    """
    _refuse_holes(table, column)
    found = []
    for index, cell in enumerate(table.columns[column]):
        text = join.join(parts) if join is not None and (parts := list(_parts(cell))) else cell
        if (fault := _fault(text, join)) is not None:
            raise InputError(f"{table.source}: row {table.number(index)}, column {column!r}: {fault}")
        found.append(text)
    return found


def _fault(text: Any, join: str | None) -> str | None:  # a cell may have any type
    """Return why a cell is not a text, and what to do, or None if it is a text."""
    if isinstance(text, list) and join is not None:  # `join` could not join it
        kind = "an empty list" if not text else f"a list whose entries are not all texts, {text!r:.60}"
        return f"the cell is {kind}, which --text-join cannot join. Write one text in the row."
    if not isinstance(text, str):
        kind, advice = next(
            ((words, advice) for types, words, advice in FOREIGN if isinstance(text, types)),
            (f"a {type(text).__name__}", "Write text"),
        )
        return f"the cell is {kind}, {text!r:.60}, and not a text. {advice}."
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return (
                f"{text[error.start]!r} is half of a surrogate pair, which is not a character. Write the whole "
                "character, or remove it."
            )
    return None


def _parts(cell: Any) -> Iterator[str]:
    """Yield the texts of a list of texts, or the contents of a list of chat turns; nothing for any other cell."""
    if isinstance(cell, list):
        texts = [turn.get("content") if isinstance(turn, dict) else turn for turn in cell]
        if all(isinstance(text, str) for text in texts):
            yield from map(str, texts)


def _from_hub(task: Task, split: str) -> Table:
    """Read a split from the hub, or from its local cache.

    Raises:
        UsageError: the data set lacks the split.
        MachineError: the hub cannot be reached and the cache lacks the data.
    """
    import datasets
    from huggingface_hub import constants

    name = task.hub.get("splits", {}).get(split, split)
    if hub.unreachable():  # use the local cache at once, instead of after half a minute of retries
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        with still():  # the hub's library draws its own progress bars
            found = datasets.load_dataset(task.hub["path"], task.hub.get("config"), split=name)
    except Exception as error:  # the hub's clients have no common error for a hub that cannot be reached
        if isinstance(error, ValueError) and (not hub.unreachable() or "Unknown split" in str(error)):
            raise UsageError(
                f"--split {split}: {task.hub['path']} lacks this split ({first_line(error).rstrip('.')}). "
                "Choose another split."
            ) from error
        raise MachineError(
            f"--task {task.name}: the split {split} of {task.hub['path']} cannot be fetched "
            f"({type(error).__name__}). Give the data with --data DIR, or try `-m demo --task demo`."
        ) from error
    return from_dataset(found, f"{task.hub['path']}/{task.hub.get('config')} {split}")
