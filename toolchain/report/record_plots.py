"""Plots of the records of `toolchain tune` and `toolchain power`, as elements of the HTML page and as SVG files."""

import itertools
import shlex
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from toolchain.records.power import PowerRecord, SavedPowerRecord
from toolchain.records.tune import SavedTuneRecord, TuneRecord
from toolchain.report.plots import ROW, WIDTH, Plot, name_rows
from toolchain.report.svg import SERIES, SOFT, draw, draw_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Most GEMMs that a plot shows, because more bars do not fit on the page.
MOST_GEMMS = 24

# Most characters of a command in a title.
TITLE = 80


def sensitivity(record: SavedTuneRecord, *, name: str) -> Plot | None:
    """Return a plot of how much the logits change when a single GEMM is in INT8, for the GEMMs with the largest change.

    The result is None if no GEMM was measured alone.
    """
    worst = _measured(record)[:MOST_GEMMS]
    if not worst:
        return None
    prefix = _shared([gemm for gemm, _ in worst])
    most = "; ".join(f"{gemm}: {effect:.3g}" for gemm, effect in worst[:5])
    svg = draw(
        lambda figure: _paint_effects(figure.subplots(), worst, set(record["keep"]), prefix),
        name=name,
        size=(WIDTH, 0.8 + ROW * len(worst)),
        title="Sensitivity to INT8",
        description=f"most: {most}",
    )
    caption = (
        f"Change of the logits with a single GEMM in INT8: the {len(worst)} of {len(record['products'])} GEMMs that "
        f"change them most, among those that were measured.{f' All names begin with {prefix}.' if prefix else ''}"
    )
    if record["keep"]:
        caption += " Second colour: excluded from INT8."
    return Plot(svg, caption, ("products.effect",), (record["file"],))


def tune_file(record: TuneRecord) -> str:
    """Return the text of an SVG file with two plots of a record of `tune`.

    On the left is the change of the logits with each GEMM alone in INT8. On the right is the expected drop of the
    metric for each set of excluded GEMMs that was tried.
    """
    measured = _measured(record)

    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        _paint_effects(left, measured, set(record["keep"]), "")
        left.set_title("orange: excluded from INT8")
        left.tick_params(axis="y", labelsize=7)
        _paint_sets(right, record)

    return draw_file(paint, size=(11, 1.5 + 0.25 * len(measured)))


def _measured(record: TuneRecord) -> list[tuple[str, float]]:
    """Return name and effect (change of the logits) of each GEMM that was measured alone, the largest effect first."""
    found = [(one["name"], one["effect"]) for one in record["products"] if one["effect"] is not None]
    return sorted(found, key=lambda pair: -pair[1])


def _paint_effects(axes: "Axes", gemms: list[tuple[str, float]], kept: set[str], prefix: str) -> None:
    colours = [SERIES[1] if name in kept else SERIES[0] for name, _ in gemms]
    axes.barh(range(len(gemms)), [effect for _, effect in gemms], color=colours, height=0.7)
    name_rows(axes, [name.removeprefix(f"{prefix}.") for name, _ in gemms])
    axes.set_xlabel("distance of the logits from FP32")


def _paint_sets(axes: "Axes", record: TuneRecord) -> None:
    sets = sorted(record["sets"], key=lambda one: one["macs"])
    axes.plot([100 * one["macs"] for one in sets], [one["expected_drop_points"] for one in sets], "o-", color=SERIES[0])
    axes.axhline(record["max_drop_points"], color=SOFT, linestyle="--", label="allowed")
    axes.set(xlabel="work excluded from INT8, % of MACs", ylabel="expected drop, points (on train rows)")
    axes.set_title("sets tried")
    axes.legend()


def _shared(names: list[str]) -> str:
    """Return the longest dotted prefix that all names share, such as `bert.layer`; empty for a single name."""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    same = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    return ".".join(column[0] for column in same) if len(names) > 1 else ""


def power(record: SavedPowerRecord, *, name: str) -> Plot | None:
    """Return a plot of the power of each component over time; None if the record has no samples."""
    samples = record["samples"] or {}
    parts = [key for key in samples if key.endswith("_w")]
    if not parts:
        return None
    description = f"{', '.join(parts)} over {samples['time_s'][-1]:.4g} s"
    svg = draw(_power_painter(record), name=name, size=(WIDTH, 2.9), title="Power over time", description=description)
    return Plot(svg, "Power over time.", tuple(f"samples.{key}" for key in parts), (record["file"],))


def power_file(record: PowerRecord) -> str:
    """Return the text of an SVG file: the power of each component over time, and which components were not measured."""
    missing = [f"{name} ({one['reason']})" for name, one in record["components"].items() if one["joules"] is None]

    def paint(figure: "Figure") -> None:
        _power_painter(record)(figure)
        figure.axes[0].set_title(power_title(record))
        if missing:
            figure.supxlabel(f"not measured: {', '.join(missing)}", fontsize="small")

    return draw_file(paint, size=(9, 4.4))


def _power_painter(record: PowerRecord) -> "Callable[[Figure], None]":
    samples = record["samples"] or {}

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for number, key in enumerate(key for key in samples if key.endswith("_w")):
            label = key.removesuffix("_w").replace("_", " ")
            axes.plot(samples["time_s"], samples[key], color=SERIES[number], linewidth=1.3, label=label)
        axes.set(xlabel="time, s", ylabel="power, W", ylim=(0, None))
        if samples:
            figure.legend(loc="outside upper left", ncols=2, fontsize="small")

    return paint


def power_title(record: PowerRecord) -> str:
    """Return a title of two lines: the command that was measured, then its energy, duration and power."""
    command = "this machine" if record["command"] is None else shlex.join(record["command"])
    shown = textwrap.shorten(command, TITLE, placeholder=" ...")
    if record["total_j"] is None:
        return f"{shown}\nnothing could be measured in {record['seconds']:.4g} s"
    return (
        f"{shown}\n{record['total_j']:.4g} J in {record['seconds']:.4g} s, mean {record['mean_power_w']:.4g} W, "
        f"peak {record['peak_power_w']:.4g} W"
    )
