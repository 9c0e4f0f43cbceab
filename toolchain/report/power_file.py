"""A power record as a file: JSON with the whole record, CSV with the samples, or an SVG plot of power over time."""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

from toolchain.base.files import write_json, write_text
from toolchain.errors import InputError, UsageError
from toolchain.records.power import PowerRecord
from toolchain.report.record_plots import power_file


def writer(path: Path) -> Callable[[PowerRecord], None]:
    """Return a function that writes a power record to `path`, in the format that its suffix names.

    Call `writer` before the measurement, so that a wrong path is found before there is a record to lose.

    Raises:
        UsageError: the suffix is not one of FORMATS.
        InputError: the folder is not writable.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: its suffix does not name a format. Choose {', '.join(FORMATS)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent}: the folder cannot be written to. Choose another one.")
    return lambda record: FORMATS[path.suffix](path, record)


def samples_csv(record: PowerRecord) -> str:
    """Return the samples of a record as CSV, one row per sample.

    The columns are `time_s`, and for each measured component its power in W and the energy since the start in J.
    """
    samples = record["samples"] or {"time_s": []}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(samples)
    rows.writerows(zip(*samples.values(), strict=True))
    return text.getvalue()


FORMATS: dict[str, Callable[[Path, PowerRecord], None]] = {
    ".json": write_json,
    ".csv": lambda path, record: write_text(path, samples_csv(record)),
    ".svg": lambda path, record: write_text(path, power_file(record)),
}
