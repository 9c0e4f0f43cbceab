"""Tables of a user: the files and folders that hold a split, and their cells as Python values.

A place is a folder with a file for each split (`train.csv`, or the hub's `data/train-00000-of-00002.parquet`), a folder
that `datasets` wrote with `save_to_disk`, or one file. `data/rows.py` makes rows of text and label of the cells.
"""

import csv
import dataclasses
import itertools
import json
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolchain.errors import InputError, first_line

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)

# In the order in which a folder is searched for them.
SUFFIXES = ("tsv", "csv", "jsonl", "parquet")

# The hub's name of a part of a split.
SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")

# Files of `save_to_disk`: of a dictionary of splits, and of one data set.
DICTIONARY, STATE = "dataset_dict.json", "state.json"

# The values of a column, as JSON, Arrow or CSV give them; a missing one is None.
Cells = list[Any]


class MissingSplitError(InputError):
    """The place exists, but lacks the split that was asked for."""


@dataclass(frozen=True)
class Table:
    """The cells of a table by column.

    `source` names it in messages. `class_names` has the names behind the numbers of a column whose type is ClassLabel.
    If the table is a part of a file, `before` counts the rows before it.
    """

    source: str
    columns: dict[str, Cells]
    class_names: dict[str, list[str]] = field(default_factory=dict)
    before: int = 0

    def __len__(self) -> int:
        return max(map(len, self.columns.values()), default=0)


def read_split(place: Path, split: str) -> Table:
    """Read one split of a folder.

    Raises:
        MissingSplitError: the folder lacks the split; the message names those that it has.
        InputError: the folder does not exist, or a file cannot be read.
    """
    if not place.is_dir():
        raise InputError(f"--data {place}: the folder does not exist. Give one with a file such as {split}.tsv.")
    if (place / DICTIONARY).is_file():
        if (place / split / STATE).is_file():
            return _saved(place / split)
    elif files := _files(place).get(split):
        return _joined([_read(file) for file in files])
    found = splits(place)
    wanted = ", ".join(f"{split}.{suffix}" for suffix in SUFFIXES)
    has = f"It has {', '.join(found)}." if found else "It has no split that this tool knows."
    raise MissingSplitError(f"{place}: none of {wanted} exists. {has} Add the split, or choose another with --split.")


def splits(place: Path) -> list[str]:
    """Return the names of a folder's splits, sorted."""
    if (place / DICTIONARY).is_file():
        return sorted(path.parent.name for path in place.glob(f"*/{STATE}"))
    return sorted(_files(place))


def is_single(place: Path) -> bool:
    """Return whether a place is one table without splits: a file, or one data set of `save_to_disk`."""
    return place.is_file() or (place / STATE).is_file()


def read_single(place: Path) -> Table:
    """Read one table without splits.

    Raises:
        InputError: it cannot be read.
    """
    return _read(place) if place.is_file() else _saved(place)


def _files(folder: Path) -> dict[str, list[Path]]:
    """Return split -> its files, in the folder itself, else in its folder `data`, as on the hub.

    Raises:
        InputError: a split lacks one of its numbered files.
    """
    for place in (folder, folder / "data"):
        found: dict[str, list[Path]] = {}
        for suffix in SUFFIXES:
            for split, files in _of_suffix(place, suffix).items():
                if split in found:
                    log.warning("%s: read, and %s is left out. Keep one of them.", found[split][0], files[0].name)
                else:
                    found[split] = files
        if found:
            return found
    return {}


def _of_suffix(folder: Path, suffix: str) -> dict[str, list[Path]]:
    """Return split -> its files with this suffix: one whole file, else all numbered parts."""
    whole: dict[str, list[Path]] = {}
    parts: dict[tuple[str, int], list[Path]] = {}
    for file in sorted(folder.glob(f"*.{suffix}")):
        if not file.is_file() or file.name.startswith("."):
            continue
        if shard := SHARD.fullmatch(file.stem):
            parts.setdefault((shard["split"], int(shard["count"])), []).append(file)
        else:
            whole[file.stem] = [file]
    for (split, count), files in parts.items():
        if len(files) != count:
            raise InputError(
                f"{folder}: {split} has {len(files)} of {count} files, such as {files[0].name}. Get the others too."
            )
        whole.setdefault(split, files)
    return whole


def _joined(tables: list[Table]) -> Table:
    """Return the rows of several files with the same columns as one table.

    Raises:
        InputError: a file has other columns.
    """
    first, *others = tables
    for other in others:
        if (other.columns.keys(), other.class_names) != (first.columns.keys(), first.class_names):
            raise InputError(
                f"{other.source}: its columns {', '.join(other.columns)} are not those of {first.source}: "
                f"{', '.join(first.columns)}. Write the same columns and classes."
            )
    columns = {name: [cell for table in tables for cell in table.columns[name]] for name in first.columns}
    return Table(first.source, columns, first.class_names)


def _read(file: Path) -> Table:
    """Read a table by the suffix of its file. For errors, see `read_parts`."""
    (table,) = read_parts(file)
    return table


def read_parts(file: Path, rows: int | None = None) -> Iterator[Table]:
    """Yield a table in parts of `rows` rows, or in one part, by the suffix of its file.

    Raises:
        InputError: the suffix is unknown, two columns have one name, or the file is empty, is not UTF-8, or cannot be
            parsed.
    """
    import pandas
    import pyarrow

    if file.suffix[1:] not in SUFFIXES:
        raise InputError(f"{file}: not a table that can be read. Give a file *.{', *.'.join(SUFFIXES)}.")
    parts, before = _parts(file, rows), 0
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pandas.errors.ParserWarning)  # else pandas drops cells beyond the header
                part = next(parts, None)
        except pandas.errors.EmptyDataError:
            raise InputError(f"{file}: empty. Give a file with a header and rows.") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not UTF-8 in line {_not_utf8(file)} ({error.reason}). Convert it.") from None
        except pandas.errors.ParserWarning:
            raise InputError(f"{file}: row 1 has more cells than the header. Fix the file.") from None
        except (ValueError, OSError, pyarrow.ArrowException) as error:
            first = first_line(error).rstrip(".")
            raise InputError(f"{file}: cannot be read as {file.suffix[1:]}: {first}. Fix the file.") from None
        if part is None:
            return
        yield dataclasses.replace(part, before=before)
        before += len(part)


def _parts(file: Path, rows: int | None) -> Iterator[Table]:
    """Yield what `read_parts` yields, with the errors of the libraries."""
    from pyarrow.parquet import ParquetFile

    match file.suffix:
        case ".tsv":  # without quoting: `"` is an ordinary character
            yield from _delimited(file, rows, sep="\t", quoting=csv.QUOTE_NONE)
        case ".csv":
            yield from _delimited(file, rows, sep=",", quoting=csv.QUOTE_MINIMAL)
        case ".jsonl":
            objects = _jsonl(file)
            yield _of_objects(list(itertools.islice(objects, rows)), file)
            while rows and (part := list(itertools.islice(objects, rows))):
                yield _of_objects(part, file)
        case _:
            with ParquetFile(file) as opened:
                if rows is None:
                    yield _arrow(opened.read(), str(file))
                else:
                    batches = opened.iter_batches(batch_size=rows)
                    yield from (_arrow(batch, str(file)) for batch in batches)


def _delimited(file: Path, rows: int | None, *, sep: str, quoting: Literal[0, 3]) -> Iterator[Table]:
    """Yield cells as text. An empty cell counts as missing, because a row that ends early looks the same."""
    import pandas

    with file.open(encoding="utf-8-sig", newline="") as lines:
        header = next(csv.reader(lines, delimiter=sep, quoting=quoting), [])
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise InputError(f"{file}: two columns are called {twice[0]!r}. Give them distinct names.")
    with pandas.read_csv(
        file,
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        index_col=False,
        encoding="utf-8",
        sep=sep,
        quoting=quoting,
        iterator=True,
        chunksize=rows,
    ) as opened:
        for part in opened if rows else [opened.read()]:
            columns = {
                str(name): [cell if isinstance(cell, str) else None for cell in part[name]] for name in part.columns
            }
            yield Table(str(file), columns)


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:  # arbitrary JSON of the user
    """Yield one JSON object a line.

    Raises:
        InputError: a line is not a JSON object.
    """
    # Lines end with a line feed alone: a text may contain line ends of other kinds.
    with file.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError):
                    raise InputError(f"{file}: line {number} is not JSON. Fix the file.") from None
                if not isinstance(found, dict):
                    raise InputError(f"{file}: line {number} is not a JSON object. Fix the file.")
                yield found


def _of_objects(objects: list[dict[str, Any]], file: Path) -> Table:
    names = dict.fromkeys(name for row in objects for name in row)
    return Table(str(file), {name: [row.get(name) for row in objects] for name in names})


def _saved(folder: Path) -> Table:
    """Read one data set of `save_to_disk`.

    Raises:
        InputError: it cannot be read.
    """
    import datasets

    try:
        found = datasets.load_from_disk(str(folder)).with_format("arrow")[:]
    except Exception as error:  # datasets raises errors of many libraries for broken files
        raise InputError(f"{folder}: cannot be read as a saved data set: {first_line(error)}. Save it again.") from None
    return _arrow(found, str(folder))


def _arrow(table: "pyarrow.Table | pyarrow.RecordBatch", source: str) -> Table:
    """Return the cells of an Arrow table, and the class names that `datasets` keeps in its schema.

    Raises:
        InputError: two columns have one name.
    """
    import datasets

    names = table.schema.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{source}: two columns are called {twice[0]!r}. Give them distinct names.")
    classes = {}
    if b"huggingface" in (table.schema.metadata or {}):
        try:
            features = datasets.Features.from_arrow_schema(table.schema)
        except Exception:  # metadata of another version of datasets; the numbers then have no names
            features = {}
        classes = {name: kind.names for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    return Table(source, {name: table[name].to_pylist() for name in names}, classes)


def from_dataset(dataset: Any, source: str) -> Table:
    """Return the cells of a data set of `datasets`."""
    return _arrow(dataset.with_format("arrow")[:], source)


def _not_utf8(file: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0
