"""Finds and reads the files of a user's data set.

A place is the path given with --data: a folder with a file for each split (`train.csv`, or the hub's
`data/train-00000-of-00002.parquet`), a folder that `datasets` wrote with `save_to_disk`, or one file. `data/rows.py`
makes rows of text and label from the tables.
"""

import logging
import re
import unicodedata
from pathlib import Path
from typing import Any

from toolchain.data.table_file import SUFFIXES, Table, advice_on, of_arrow, read_parts
from toolchain.errors import InputError, first_line

log = logging.getLogger(__name__)

# File name, without suffix, of a part of a split on the hub. Older versions of `datasets` added a digest.
SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?")

# Beginnings of the names of files that are not splits: hidden files, and files with metadata of `datasets`.
NO_SPLIT = (".", "dataset_info")

# Files that `save_to_disk` writes: for a dictionary of splits, and for a single data set.
DICTIONARY, STATE = "dataset_dict.json", "state.json"


class MissingSplitError(InputError):
    """The data exist, but lack the split that was asked for."""


def read_split(place: Path, split: str) -> Table:
    """Read one split of a folder.

    Raises:
        MissingSplitError: the folder lacks the split; the message names the splits that it has.
        InputError: the folder does not exist, or a file cannot be read.
    """
    if place.exists() and not place.is_dir():
        raise InputError(f"--data {place}: this is a pipe or a device, not a file or a folder. Save it as a file.")
    if not place.is_dir():
        raise InputError(f"--data {place}: the folder does not exist. Give a folder with a file such as {split}.tsv.")
    if (place / DICTIONARY).is_file():
        if (place / split / STATE).is_file():
            return _saved(place / split)
    elif found := _files(place).get(split):
        files, *others = found
        if others:
            log.warning(
                "%s is read, and %s is ignored: both files are the same split. Remove one of them.",
                files[0],
                others[0][0],
            )
        _require_all(files)
        return _joined([_read(file) for file in files])
    wanted = ", ".join(f"{split}.{suffix}" for suffix in SUFFIXES)
    raise MissingSplitError(f"{place}: none of {wanted} exists. {_instead(place, split)}")


def _instead(place: Path, split: str) -> str:
    """Return what the folder has instead of the split, and what to do: the end of the message about a missing split."""
    for path in sorted(place.glob(f"{split}[.-]*")):
        if path.is_dir():
            return f"{path.name} is a folder. Join its files into one file that is named after the split."
        return f"{path.name} cannot be read. {advice_on(path)}"
    if found := splits(place):
        return f"The folder has {', '.join(found)}. Add the split, or choose another with --split."
    for path in sorted(filter(Path.is_dir, place.iterdir())):
        if split in (found := splits(path)):
            return f"Its subfolder {path.name} has {', '.join(found)}. Name that folder with --data."
    return "The folder has no table file. Add the file, or name another folder with --data."


def splits(place: Path) -> list[str]:
    """Return the names of a folder's splits, sorted."""
    if (place / DICTIONARY).is_file():
        return sorted(path.parent.name for path in place.glob(f"*/{STATE}"))
    return sorted(_files(place))


def is_single(place: Path) -> bool:
    """Return whether a place is one table without splits: a file, or a `datasets.Dataset` that `save_to_disk` wrote."""
    return place.is_file() or (place / STATE).is_file()


def read_single(place: Path) -> Table:
    """Read one table without splits.

    Raises:
        InputError: the file or folder cannot be read.
    """
    return _read(place) if place.is_file() else _saved(place)


def _files(folder: Path) -> dict[str, list[list[Path]]]:
    """Return split -> its files, one list per format, from the folder and from its subfolder `data`, as on the hub.

    The formats are in the order in which they are preferred; `read_split` reads the first.
    """
    found: dict[str, list[list[Path]]] = {}
    for place in (folder, folder / "data"):
        for suffix in SUFFIXES:
            for split, files in _of_suffix(place, suffix).items():
                found.setdefault(split, []).append(files)
    return found


def _of_suffix(folder: Path, suffix: str) -> dict[str, list[Path]]:
    """Return split -> its files with this suffix: a single file if there is one, else all its numbered files."""
    whole: dict[str, list[Path]] = {}
    parts: dict[tuple[str, int], list[Path]] = {}
    for file in sorted(folder.glob("*.*")):
        if file.suffix.lower() != f".{suffix}" or not file.is_file() or file.name.startswith(NO_SPLIT):
            continue
        if shard := SHARD.fullmatch(file.stem):
            parts.setdefault((shard["split"], int(shard["count"])), []).append(file)
        else:
            whole[file.stem] = [file]
    for (split, _count), files in parts.items():
        whole.setdefault(split, files)
    return whole


def _require_all(files: list[Path]) -> None:
    """Check that no numbered file of a split is missing.

    Raises:
        InputError: a file is missing; the message names one that exists.
    """
    shard = SHARD.fullmatch(files[0].stem)
    if shard and len(files) != int(shard["count"]):
        raise InputError(
            f"{files[0].parent}: the split {shard['split']} has {len(files)} of {int(shard['count'])} files, such as "
            f"{files[0].name}. Add the missing files."
        )


def _joined(tables: list[Table]) -> Table:
    """Return the rows of several files with the same columns as one table.

    Raises:
        InputError: two files differ in their columns or in the names of their classes.
    """
    first, *others = tables
    for other in others:
        if (other.columns.keys(), other.class_names) != (first.columns.keys(), first.class_names):
            raise InputError(
                f"{other.source}: its columns {', '.join(other.columns)}, or their classes, differ from those of "
                f"{first.source}: {', '.join(first.columns)}. Give both files the same columns and classes."
            )
    columns = {name: [cell for table in tables for cell in table.columns[name]] for name in first.columns}
    # Row numbers in messages count over all files, so the source names the first and the last file.
    source = f"{first.source} to {Path(others[-1].source).name}" if others else first.source
    return Table(source, columns, first.class_names)


def _read(file: Path) -> Table:
    """Read a table by the suffix of its file. For errors, see `read_parts`."""
    (table,) = read_parts(file)
    return table


def _saved(folder: Path) -> Table:
    """Read a folder that a `datasets.Dataset` wrote with `save_to_disk`.

    Raises:
        InputError: the folder cannot be read.
    """
    import datasets

    try:
        found = datasets.load_from_disk(str(folder)).with_format("arrow")[:]
    except Exception as error:  # datasets raises errors of many libraries for broken files
        raise InputError(
            f"{folder}: the saved data set cannot be read: {first_line(error)}. Save it again with save_to_disk."
        ) from None
    return of_arrow(found, str(folder))


def from_dataset(dataset: Any, source: str) -> Table:
    """Return a `datasets.Dataset` as a `Table`."""
    return of_arrow(dataset.with_format("arrow")[:], source)


def require_columns(
    table: Table,
    columns: list[str],
    *,
    advice: str = "Name the columns with --task custom --text-column A[,B] --label-column L; the file needs a header.",
) -> None:
    """Refuse a table without rows, or without one of the columns.

    Raises:
        InputError: there are no rows, or a column is missing. The message names the columns that exist, and one that
            differs from the missing column only in case or white space.
    """
    if not len(table):
        raise InputError(f"{table.source}: the file has no rows. Give a file with at least one row.")
    if absent := [column for column in columns if column not in table.columns]:
        alike = [name for name in table.columns if _folded(name) == _folded(absent[0])]
        advice = f"Write the name exactly as in the file: {alike[0]!r}." if alike else advice
        if len(table.columns) == 1 and table.source.lower().endswith(".csv"):
            advice += " Commas, semicolons or tabs must separate the columns of a csv."
        raise InputError(
            f"{table.source}: there is no column {absent[0]!r}, only {', '.join(map(repr, table.columns))}. {advice}"
        )


def _folded(name: str) -> str:
    """Return a column's name in lower case, without outer white space and in NFC, to find names that look alike."""
    return unicodedata.normalize("NFC", name).casefold().strip()
