"""The folder of a sweep: it has a folder with the result of each cell, and the record of the sweep.

sweep.json                the record of the sweep
digests.json              digests of model and data files, so that they are not read again
bundles/NAME/             a bundle, which several cells may share
cells/NAME/result.json    the result of a cell, written last: the cell is done if this file exists and is complete
cells/NAME/*.npz          the predictions of the cell and of FP32
cells/NAME/run.json       the last run of the cell: seconds, attempts, and why it failed
cells/NAME/log.txt        the stderr of the cell's commands
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

# This file is written first. It marks the folder as a sweep's folder, even if the first call is killed.
MARK = "sweep.txt"

# Largest size of MARK in bytes. The file contains only the name of the sweep.
MAX_MARK_BYTES = 1 << 12


@contextmanager
def opened(folder: Path, name: str) -> Iterator[SweepRecord | None]:
    """Lock the folder of the sweep `name`, and yield the record of the last call, or None if there is none.

    Raises:
        InputError: the folder belongs to another sweep or has other files in it, or another call is using it.
    """
    check(folder, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        folder.mkdir(exist_ok=True)
        if not (folder / MARK).exists():
            write_text(folder / MARK, name + "\n")
        yield read_record(folder)


def check(folder: Path, name: str) -> None:
    """Check that the sweep `name` may write to a folder: it has written there before, or the folder is empty or new.

    Raises:
        InputError: the folder has the results of another sweep, or other files, or is a file.
    """
    found = _name_in(folder)
    if found is not None and found != name:
        raise InputError(
            f"{folder}: the folder has the results of another sweep, {found}. Choose another folder with -o."
        )
    if file := next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None):
        raise InputError(f"{folder}: {file} is a file. Choose another folder with -o.")
    if found is None and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: the folder has files that are not from a sweep. Choose another folder with -o.")


def _name_in(folder: Path) -> str | None:
    try:
        with open_file(folder / MARK) as file:
            return file.read(MAX_MARK_BYTES).decode(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_record(folder: Path) -> SweepRecord | None:
    """Return the record of a sweep; None if it is missing or cannot be read."""
    return cast("SweepRecord | None", _read(folder / RECORD, SweepRecord))


def read_run(folder: Path, cell: Cell) -> CellRun | None:
    """Return the record of a cell's last run; None if the cell has not run or the record cannot be read."""
    return cast("CellRun | None", _read(folder / CELLS / cell.name / RUN, CellRun))


def _read(file: Path, kind: Any) -> object | None:  # a class of TypedDict
    try:
        found = read_json(file, what="record", advice="")
    except InputError:
        return None
    return None if find_fault(found, kind) else found


def is_done(folder: Path, cell: Cell) -> bool:
    """Return whether a cell is done: its result and the record of its run can be read."""
    file = folder / CELLS / cell.name / RESULT
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return _is_whole(file, found.st_size, found.st_mtime_ns) and read_run(folder, cell) is not None


@cache
def _is_whole(file: Path, size: int, changed_ns: int) -> bool:
    """Return whether a file has a complete result; a file with the same size and change time is read only once."""
    try:
        found = read_json(file, what="result", advice="")
    except InputError:
        return False
    return isinstance(found, dict) and "metrics" in found and find_fault(found, Result, whole=False) is None


def is_built(folder: Path, cell: Cell) -> bool:
    """Return whether the bundle of a cell has been built."""
    return (folder / BUNDLES / cell.bundle / MANIFEST).is_file()


def remove_left(folder: Path, cell: Cell) -> None:
    """Remove temporary files that a killed sweep left in the folder of a cell."""
    for name in (RUN, RESULT):
        for left in (folder / CELLS / cell.name).glob(f".{name}.*"):
            left.unlink(missing_ok=True)


def keep(folder: Path, cell: Cell, run: CellRun, ended: Ended) -> None:
    """Write the record of a cell's run and, if its command `ended` without an error, its predictions and its result.

    The result is written last.

    Raises:
        InputError: the command ended without an error but printed no result, or its predictions are missing.
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


def _parse(out: bytes) -> dict[str, Any]:  # a result, which `load_result` checks later
    try:
        found = json.loads(out)
        return {**found, "file": str(found["file"])}
    except (ValueError, KeyError, TypeError):
        raise InputError("the command printed no result") from None


def _size_mb(bundle: Path, result: dict[str, Any]) -> float | None:
    """Return the size of a result's artefact with its external weights, in MB (10^6 bytes); None without a file."""
    file = bundle / str((result.get("artefact") or {}).get("file", ""))
    if not file.is_file():
        return None
    beside = file.with_name(f"{file.name}.data")
    return (file.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)) / 1e6
