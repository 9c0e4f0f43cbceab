"""The plot of a record of `explain --target`: a lower bound of the time of the kernels, for FP16 and INT8.

The time of each precision is split by kind of kernel.
"""

from typing import TYPE_CHECKING

from toolchain.records.kernels import CompiledGraph, SavedExplainedTarget
from toolchain.report.plots import ROW, WIDTH, Plot, name_rows
from toolchain.report.svg import SERIES, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def kernels(record: SavedExplainedTarget, *, name: str) -> Plot:
    """Return a plot with a bar for each precision, stacked from the times of its kinds of kernels in µs."""
    graphs = record["graphs"]
    kinds = list(dict.fromkeys(group["kind"] for one in graphs for group in one["groups"]))

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        left = [0.0] * len(graphs)
        for number, kind in enumerate(kinds):
            widths = [_us(one, kind) for one in graphs]
            axes.barh(range(len(graphs)), widths, left=left, color=SERIES[number], height=0.6, label=kind)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        name_rows(axes, [one["precision"] for one in graphs])
        axes.set_xlabel("lower bound of the time of a batch, µs")
        figure.legend(loc="outside upper left", ncols=4, fontsize="small")

    description = "; ".join(
        f"{one['precision']}: {one['us']:,.0f} µs, " + ", ".join(f"{kind} {_us(one, kind):,.0f}" for kind in kinds)
        for one in graphs
    )
    svg = draw(
        paint,
        name=name,
        size=(WIDTH, 1.3 + 1.4 * ROW * len(graphs)),
        title=f"Kernels for {record['target']}",
        description=description,
    )
    return Plot(svg, "Lower bound of the time of a batch, by kind of kernel.", ("graphs.groups.us",), (record["file"],))


def _us(compiled: CompiledGraph, kind: str) -> float:
    return sum(group["us"] for group in compiled["groups"] if group["kind"] == kind)
