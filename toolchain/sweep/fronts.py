"""Pareto fronts of a sweep. A cell dominates another only if a difference between them is statistically resolved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toolchain.errors import InputError
from toolchain.evaluation.results import is_resolved
from toolchain.records.result import Result
from toolchain.records.sweep import CellRun, Front
from toolchain.report.costs import COSTS, Ends, counted_in

# Takes the indices of two cells; returns whether the first one's metric is higher than the second one's by more than
# chance.
Resolved = Callable[[int, int], bool]


@dataclass(frozen=True)
class Done:
    """A cell that is done, with its result and the record of its run."""

    name: str
    result: Result
    run: CellRun


def fronts(cells: Sequence[Done], objectives: Sequence[str]) -> list[Front]:
    """Return a front for each task and cost, among cells that evaluated the same rows.

    Results without a main metric are left out. Energies are compared only if their totals have the same components, so
    there is a front for each set of components.
    """
    tasks: dict[tuple[str, str, str], list[Done]] = {}
    for cell in cells:
        result = cell.result
        if result["primary"] is None:
            continue
        tasks.setdefault((result["task"], result["data_sha256"], result["primary"]), []).append(cell)
    return [one for its in tasks.values() for cost in objectives for one in _fronts(its, cost)]


def _fronts(cells: list[Done], cost: str) -> list[Front]:
    """Return the fronts of the cells of one task for one cost."""
    ends = {cell.name: COSTS[cost].ends(cell.result, cell.run) for cell in cells}
    unmeasured = [cell.name for cell in cells if ends[cell.name] is None]
    groups: dict[str, list[tuple[Done, Ends]]] = {}
    for cell in cells:
        if (its := ends[cell.name]) is not None:
            groups.setdefault(str(counted_in(cost, cell.result)), []).append((cell, its))
    return [_front(cells[0], measured, cost, unmeasured) for measured in groups.values() or [[]]]


def _front(of: Done, measured: list[tuple[Done, Ends]], cost: str, unmeasured: list[str]) -> Front:
    """Return the front of the cells whose cost was measured; `of` is any cell of the task."""
    its, metric = [cell for cell, _ in measured], str(of.result["primary"])
    gains = [cell.result["metrics"][metric] for cell in its]
    # A front needs costs, of which less is better. For throughput, more is better, so its negative is used.
    costs = [ends if COSTS[cost].less else (-ends[0], -ends[2], -ends[1]) for _, ends in measured]
    members = resolved_front(gains, costs, lambda better, other: _higher(its[better], its[other], metric))
    members.sort(key=lambda at: costs[at][0])
    beaten = {at for at in members if any(_beats(gains, costs, other, at) for other in range(len(its)))}
    return {
        "task": of.result["task"],
        "data_sha256": of.result["data_sha256"],
        "metric": metric,
        "cost": cost,
        "members": [its[at].name for at in members],
        "unresolved": [its[at].name for at in members if at in beaten],
        "unmeasured": unmeasured,
        "components": counted_in(cost, its[0].result) if its else None,
    }


def resolved_front(gains: Sequence[float], costs: Sequence[Ends], higher: Resolved) -> list[int]:
    """Return the indices of the points that no other point dominates.

    A point dominates another if its gain is at least as high and its cost at most as high, and at least one of the two
    differences is resolved. A difference of costs is resolved if their intervals do not overlap, and a difference of
    gains if `higher` says so. Thus a point that is better only by chance removes no other point from the front.
    """
    every = range(len(gains))

    def dominates(one: int, other: int) -> bool:
        if not _beats(gains, costs, one, other):
            return False
        return costs[one][2] < costs[other][1] or (gains[one] > gains[other] and higher(one, other))

    return [at for at in every if not any(dominates(other, at) for other in every)]


def _beats(gains: Sequence[float], costs: Sequence[Ends], one: int, other: int) -> bool:
    """Return whether a point is at least as good as another in gain and cost, and better in one of them."""
    here, there = (gains[one], -costs[one][0]), (gains[other], -costs[other][0])
    return here != there and here[0] >= there[0] and here[1] >= there[1]


def _higher(better: Done, other: Done, metric: str) -> bool:
    """Return whether a metric is higher by more than chance.

    Predictions are compared row by row. Without predictions, the 95 % intervals of the metric must not overlap.
    """
    try:
        return is_resolved(better.result, other.result)
    except InputError:
        low, high = better.result["metrics_ci95"][metric][0], other.result["metrics_ci95"][metric][1]
        return low > high
