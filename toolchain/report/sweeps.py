"""The part of the HTML page for a sweep: its cells side by side, and a plot of each Pareto front.

A cell is one combination of options that was built and evaluated.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain.base.amounts import counted
from toolchain.records.result import Result
from toolchain.records.sweep import Front, State, SweepCell
from toolchain.report.cell_names import SHORT, short_name, shown, varying
from toolchain.report.columns import Cell, Number, metric, number
from toolchain.report.costs import COSTS, Ends, counted_in
from toolchain.report.inputs import Sweep
from toolchain.report.plots import MARKERS, ROW, WIDTH, Plot, spread
from toolchain.report.svg import SERIES, SOFT, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A legend has one column if a label has more characters than this, because two such labels do not fit side by side.
WIDE = 24

# Cost -> number format in the table: significant digits for energy, fixed decimals for the others.
PATTERNS = {"energy": ".3g", "latency": ",.2f", "throughput": ",.0f", "size": ",.1f"}


@dataclass(frozen=True)
class Line:
    """A row of the table, which shows one cell: its options, metric and costs, and the Pareto fronts that it is on."""

    name: str
    anchor: str | None
    options: list[str]
    metric: Cell
    costs: list[Cell]
    fronts: str


@dataclass(frozen=True)
class SweepSection:
    """A sweep on the page. `others` has the name, state and reason of each cell without a result.

    Such a cell failed, is impossible, or has not run yet.
    """

    title: str
    counts: str
    options: list[str]
    costs: list[str]
    lines: list[Line]
    others: list[tuple[str, State, str]]
    plots: list[Plot]


def section(sweep: Sweep, anchor: str, anchors: dict[int, str]) -> SweepSection:
    """Return the section of the page for a sweep. `anchors` maps `id(result)` to the HTML id of the result's record."""
    record = sweep.record
    cells, differ = record["cells"], varying(record["cells"])
    on: dict[str, list[str]] = {}
    for front in record["fronts"]:
        for name in front["members"]:
            on.setdefault(name, []).append(front["cost"])
    looks = {name: at for at, name in enumerate(on)}
    lines = [
        Line(
            cell["key"][:SHORT],
            anchors.get(id(result)),
            [shown(cell, key) for key in differ],
            metric(result),
            [_cost(cost, cell, result, record["file"]) for cost in record["objectives"]],
            ", ".join(on.get(cell["name"], [])) or "-",
        )
        for cell in cells
        if (result := sweep.results.get(cell["name"]))
    ]
    others = [
        (short_name(cell, differ), cell["state"], cell["reason"] or "it has not run yet")
        for cell in cells
        if cell["name"] not in sweep.results
    ]
    return SweepSection(
        record["name"],
        f"{len(cells)} cells, {len(lines)} done",
        differ,
        [COSTS[cost].label for cost in record["objectives"]],
        lines,
        others,
        [
            plot
            for at, front in enumerate(record["fronts"])
            if (plot := _plot(sweep, front, looks, name=f"{anchor}-{at}"))
        ],
    )


def _cost(cost: str, cell: SweepCell, result: Result, file: str) -> Cell:
    """Return the table cell of a cost, from the result or, for the size, from the record of the cell's run."""
    ends = _ends(cost, cell, result)
    if ends is None:
        return Cell()
    if cost == "size":
        return Cell((Number(format(ends[0], PATTERNS[cost]), ends[0], COSTS[cost].key, file),))
    return Cell((number(result, COSTS[cost].key, PATTERNS[cost]),))


def _ends(cost: str, cell: SweepCell, result: Result) -> Ends | None:
    return COSTS[cost].ends(result, cell["run"]) if cell["run"] else None


def _plot(sweep: Sweep, front: Front, looks: dict[str, int], *, name: str) -> Plot | None:
    """Return the plot of a Pareto front: its cells in colour with names and intervals, dominated cells in grey.

    `looks` has a number for each cell, which selects its colour and marker in all plots. The result is None if no cell
    has the cost; checkpoints, for example, have no size.
    """
    cost, cells = COSTS[front["cost"]], {cell["name"]: cell for cell in sweep.record["cells"]}
    points = {
        one: (ends, result["metrics"][front["metric"]], result["metrics_ci95"][front["metric"]])
        for one, result in sweep.results.items()
        if (result["task"], result["data_sha256"]) == (front["task"], front["data_sha256"])
        and (ends := _ends(front["cost"], cells[one], result)) is not None
        and counted_in(front["cost"], result) == front.get("components")
    }
    if not points:
        return None
    members = [one for one in front["members"] if one in points]
    differ = varying([cells[one] for one in points])
    unresolved = {one for one in members if one in front["unresolved"]}
    mark = " (not resolved)"
    labels = {one: short_name(cells[one], differ) + mark * (one in unresolved) for one in members}
    columns = 1 if max(map(len, labels.values()), default=0) > WIDE else 2

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for one in (name for name in points if name not in members):
            (x, *_), y, _ = points[one]
            axes.plot(x, y, ".", color=SOFT)
        for one in members:
            (x, left, right), y, (low, high) = points[one]
            at = looks[one]
            colour, up = SERIES[at % len(SERIES)], [[max(0.0, y - low)], [max(0.0, high - y)]]
            bars = [[x - left], [right - x]]
            axes.errorbar(x, y, yerr=up, xerr=bars, fmt="none", ecolor=colour, capsize=2.5, elinewidth=1)
            axes.plot(x, y, MARKERS[(at + at // len(SERIES)) % len(MARKERS)], color=colour, label=labels[one])
        spread(axes, [end for ends, *_ in points.values() for end in ends])
        axes.set(xlabel=f"{cost.label} ({'less' if cost.less else 'more'} is better)", ylabel=front["metric"])
        if members:
            figure.legend(loc="outside upper left", ncols=columns, fontsize="small")

    title = f"{front['task']}: {front['metric']} against {cost.label}"
    description = "; ".join(f"{labels[one]}: {points[one][1]:.4f} at {points[one][0][0]:.4g}" for one in members)
    title += f" ({', '.join(parts)})" if (parts := front.get("components")) else ""
    size = (WIDTH, 2.9 + ROW * -(-len(members) // columns))
    svg = draw(paint, name=name, size=size, title=title, description=description)
    caption, keys = _caption(title, front, len(members)), (f"metrics.{front['metric']}", cost.key)
    return Plot(svg, caption, keys, (sweep.record["file"],))


def _caption(title: str, front: Front, members: int) -> str:
    caption = f"{title}. In colours: the {members} cells of the Pareto front; grey: cells that another cell dominates."
    if front["unresolved"]:
        caption += " Not resolved: another cell is better on both axes, but the difference may be chance."
    if front["unmeasured"]:
        caption += f" Not measured: {counted(len(front['unmeasured']), 'cell')}."
    return caption
