"""Show a comparison of results on the terminal: accuracy drops, their bounds, and verdicts."""

from toolchain.cli.show import put, titled
from toolchain.data.metrics import OF_SEVERAL
from toolchain.evaluation.compare import SEVERAL
from toolchain.records.comparison import ComparisonList, NamedComparison

LEGEND = (
    "from, to: the metric of the baseline and of the candidate; lost, gained: rows that only the baseline, or only the "
    "candidate, gets right; p: probability of such a difference by chance"
)


def compared(record: ComparisonList) -> None:
    """Print each drop with its bounds and verdict, and the smallest true drop that this many rows can detect."""
    comparisons = record["comparisons"]
    first = comparisons[0]
    title = f"{first['task']} {first['split']}, {first['n']} rows: {first['metric']} against {first['baseline_name']}"
    table = titled(title, narrow=True)
    bounds = f"drop, points\n[{100 * first['confidence']:g} % each side]"
    for heading in ("candidate", "from", "to", bounds, "lost", "gained", "p", "verdict"):
        table.add_column(heading, justify="left" if heading in ("candidate", "verdict") else "right", no_wrap=True)
    for one in comparisons:
        table.add_row(*_cells(one))
    several = [SEVERAL] if first["metric"] in OF_SEVERAL else []
    put(table, LEGEND, *several, *dict.fromkeys(line for one in comparisons for line in _detectable(one)))
    if all(one["verdict"] is None for one in comparisons):
        put("no verdict: give the allowed drop with --max-drop POINTS")


def _cells(one: NamedComparison) -> list[str]:
    low, high = ("?" if bound is None else f"{bound:+.2f}" for bound in one["bounds_points"])
    flips, p = one["flips"], one["p_value"]
    return [
        one["candidate_name"],
        f"{one['baseline']:.4f}",
        f"{one['candidate']:.4f}",
        f"{one['drop_points']:+.2f} [{low}, {high}]",
        str(flips["lost"]) if flips else "-",
        str(flips["gained"]) if flips else "-",
        "-" if p is None else f"{p:.3f}",
        one["verdict"] or "-",
    ]


def _detectable(one: NamedComparison) -> list[str]:
    smallest = one["detectable_points"]
    if smallest is None:
        return []
    return [f"{one['candidate_name']}: {one['n']} rows detect a true drop of {smallest:.2f} points in 4 of 5 cases"]
