"""The record that `toolchain shrink` puts beside the files of a checkpoint."""

from pathlib import Path
from typing import cast

from toolchain.base.files import read_json
from toolchain.errors import InputError
from toolchain.records.check import find_fault
from toolchain.records.shrink import ShrinkRecord

FILE = "shrink.json"


def read_shrink(folder: Path) -> ShrinkRecord | None:
    """Return the record of a checkpoint's folder; None if it was not shrunk.

    Raises:
        InputError: the file is not such a record.
    """
    if not (folder / FILE).is_file():
        return None
    advice = "Remove it, or shrink the original again."
    record = read_json(folder / FILE, what="the record of shrink", advice=advice)
    if fault := find_fault(record, ShrinkRecord):
        raise InputError(f"{folder / FILE}: broken: {fault}. {advice}")
    return cast(ShrinkRecord, record)
