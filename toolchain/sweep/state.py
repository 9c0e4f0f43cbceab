"""The folder of a sweep: a folder for each cell with its result, and the record of them all.

sweep.json                the record
digests.json              digests of model and data, so that they are not read again
bundles/NAME/             the bundles, each shared by cells
cells/NAME/result.json    the result of a cell, written last: the cell is done if it is there and whole
cells/NAME/*.npz          its predictions and those of FP32
cells/NAME/run.json       its last run: seconds, attempts, and why it failed
cells/NAME/log.txt        what its commands wrote to stderr
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from toolchain.base.files import carry, open_file, read_json, write_json, write_text
from toolchain.bundle import MANIFEST, locked
from toolchain.errors import InputError
from toolchain.records.check import find_fault
from toolchain.records.result import Result
from toolchain.records.sweep import CellRun, SweepRecord
from toolchain.sweep.cells import Cell
from toolchain.sweep.runner import Ended

SCHEMA = 1
RECORD, MEMORY, BUNDLES, CELLS = "sweep.json", "digests.json", "bundles", "cells"
RESULT, RUN, LOG = "result.json", "run.json", "log.txt"

# Written first, so that the folder is known as that of a sweep even if the first call is killed.
MARK = "sweep.txt"

# It has the name of the sweep.
MAX_MARK_BYTES = 1 << 12


@contextmanager
def opened(folder: Path, name: str) -> Iterator[SweepRecord | None]:
    """Hold the folder of the sweep `name`, and yield its record of the last call, or None.

    Raises:
        InputError: the folder belongs to another sweep or to nobody, or another call is using it.
    """
    check(folder, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        folder.mkdir(exist_ok=True)
        if not (folder / MARK).exists():
            write_text(folder / MARK, name + "\n")
        yield read_record(folder)


def check(folder: Path, name: str) -> None:
    """Refuse a folder that is not that of the sweep `name`, and not empty.

    Raises:
        InputError: the folder belongs to another sweep or to nobody.
    """
    found = _name_in(folder)
    if found is not None and found != name:
        raise InputError(f"{folder}: the results of another sweep, {found}, are here. Choose another folder with -o.")
    if above := next((one for one in folder.parents if one.exists() and not one.is_dir()), None):
        raise InputError(f"{folder}: {above} is a file. Choose another folder with -o.")
    if found is None and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: not empty, and not the folder of a sweep. Choose another folder with -o.")


def _name_in(folder: Path) -> str | None:
    try:
        with open_file(folder / MARK) as file:
            return file.read(MAX_MARK_BYTES).decode(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_record(folder: Path) -> SweepRecord | None:
    """Return the record of a sweep, or None if there is none or it cannot be read."""
    return cast("SweepRecord | None", _read(folder / RECORD, SweepRecord))


def read_run(folder: Path, cell: Cell) -> CellRun | None:
    """Return the last run of a cell, or None if it has not run."""
    return cast("CellRun | None", _read(folder / CELLS / cell.name / RUN, CellRun))


def _read(file: Path, kind: Any) -> object | None:  # a class of TypedDict
    try:
        found = read_json(file, what="record", advice="")
    except InputError:
        return None
    return None if find_fault(found, kind) else found


def is_done(folder: Path, cell: Cell) -> bool:
    """Return whether a cell has a result that can be read, and the record of its run."""
    file = folder / CELLS / cell.name / RESULT
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return _is_whole(file, found.st_size, found.st_mtime_ns) and read_run(folder, cell) is not None


@cache
def _is_whole(file: Path, size: int, changed_ns: int) -> bool:
    """Return whether a file of this size and time has a result: each is read once."""
    try:
        found = read_json(file, what="result", advice="")
    except InputError:
        return False
    return isinstance(found, dict) and "metrics" in found and find_fault(found, Result, whole=False) is None


def is_built(folder: Path, cell: Cell) -> bool:
    """Return whether the bundle of a cell is there."""
    return (folder / BUNDLES / cell.bundle / MANIFEST).is_file()


def remove_left(folder: Path, cell: Cell) -> None:
    """Remove the files that a killed sweep left half written beside those of a cell."""
    for name in (RUN, RESULT):
        for left in (folder / CELLS / cell.name).glob(f".{name}.*"):
            left.unlink(missing_ok=True)


def keep(folder: Path, cell: Cell, run: CellRun, ended: Ended) -> None:
    """Write what is known of a run, and, if it did not fail, its result, last of all.

    Raises:
        InputError: the command ended without an error and printed no result, or its predictions are gone.
    """
    place = folder / CELLS / cell.name
    result = None
    if ended.code == 0:
        result = _parse(ended.out)
        source = Path(str(result["file"])).parent
        holders = [one for one in (result, result.get("agreement")) if isinstance(one, dict)]
        for name in {Path(str(one["predictions"]["file"])).name for one in holders if one.get("predictions")}:
            (place / name).unlink(missing_ok=True)
            carry(source / name, place / name)
        run["size_mb"] = _size_mb(source.parent, result)
    write_json(place / RUN, run)
    if result is not None:
        write_json(place / RESULT, result)


def _parse(out: bytes) -> dict[str, Any]:  # a result; `load_result` checks it when it is read
    try:
        found = json.loads(out)
        return {**found, "file": str(found["file"])}
    except (ValueError, KeyError, TypeError):
        raise InputError("the command printed no result") from None


def _size_mb(bundle: Path, result: dict[str, Any]) -> float | None:
    """Return the size of the artefact of a result with its external weights, in MB (10^6 bytes)."""
    file = bundle / str((result.get("artefact") or {}).get("file", ""))
    if not file.is_file():
        return None
    beside = file.with_name(f"{file.name}.data")
    return (file.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)) / 1e6
