"""The record in a checkpoint that `toolchain shrink` made: shrink.json, beside its other files."""

from pathlib import Path
from typing import cast

from toolchain.base.files import read_json
from toolchain.errors import InputError
from toolchain.records.check import find_fault
from toolchain.records.shrink import ShrinkRecord

FILE = "shrink.json"


def read_shrink(folder: Path) -> ShrinkRecord | None:
    """Return the record of `toolchain shrink` in a checkpoint's folder; None if `shrink` did not make the checkpoint.

    Raises:
        InputError: shrink.json is not such a record.
    """
    if not (folder / FILE).is_file():
        return None
    advice = "Remove the file, or shrink the original model again."
    record = read_json(folder / FILE, what="the record of toolchain shrink", advice=advice)
    if fault := find_fault(record, ShrinkRecord):
        raise InputError(f"{folder / FILE}: broken: {fault}. {advice}")
    return cast(ShrinkRecord, record)
