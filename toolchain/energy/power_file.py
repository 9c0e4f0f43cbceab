"""A power record as a file: JSON whole, CSV of the samples, SVG of the power over time."""

import csv
import io
import os
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolchain.errors import InputError, UsageError
from toolchain.files import write_json, write_text

Record = dict[str, Any]

TITLE = 80
"""Letters of a command in a title."""


def writer(path: Path) -> Callable[[Record], None]:
    """Return what writes a record to a path, by its suffix; to be had before there is a record that could be lost.

    Raises:
        UsageError: another suffix.
        InputError: the folder cannot be written to.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: not a name by which to know what to write. End it in {', '.join(FORMATS)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent}: cannot be written to. Choose another folder.")
    return lambda record: FORMATS[path.suffix](path, record)


def samples_csv(record: Record) -> str:
    """Return a row for each sample: `time_s`, and watts and joules so far of every component that was measured."""
    samples = record["samples"] or {"time_s": []}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(samples)
    rows.writerows(zip(*samples.values(), strict=True))
    return text.getvalue()


def plot(record: Record) -> str:
    """Return an SVG of the power of each component over time, with what was not measured below it."""
    import matplotlib
    from matplotlib.figure import Figure

    samples = record["samples"] or {"time_s": []}
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for name, watts in samples.items():
        if name.endswith("_w"):
            axes.plot(samples["time_s"], watts, label=name.removesuffix("_w"))
            axes.legend()
    axes.set(xlabel="time, s", ylabel="power, W", ylim=(0, None))
    axes.set_title(title(record), parse_math=False)  # a shell's $ is no formula
    missing = [f"{name} ({one['reason']})" for name, one in record["components"].items() if one["joules"] is None]
    if missing:
        figure.supxlabel(f"not measured: {', '.join(missing)}", fontsize="small")
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters stay letters
        figure.savefig(text, format="svg")
    return text.getvalue()


def title(record: Record) -> str:
    """Return what a record is of, and its figures in a line."""
    what = "this machine" if record["command"] is None else shlex.join(record["command"])
    shown = textwrap.shorten(what, TITLE, placeholder=" ...")
    if record["total_j"] is None:
        return f"{shown}\nnothing could be measured in {record['seconds']:.4g} s"
    return (
        f"{shown}\n{record['total_j']:.4g} J in {record['seconds']:.4g} s, mean {record['mean_power_w']:.4g} W, "
        f"peak {record['peak_power_w']:.4g} W"
    )


FORMATS: dict[str, Callable[[Path, Record], None]] = {
    ".json": write_json,
    ".csv": lambda path, record: write_text(path, samples_csv(record)),
    ".svg": lambda path, record: write_text(path, plot(record)),
}
