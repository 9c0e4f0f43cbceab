"""Measure the cost (time or energy) of each group by ablation, in rounds.

Each round measures the whole call once, and once every variant: the call without a group, or with k more runs of it.
cost(group) = whole - variant without the group, or (variant with k more runs of it - whole) / k. The order within a
round is random, so that a drift of temperature or clocks does not favour one variant. Differences are taken within a
round, where most of a drift cancels.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import fmean, stdev

import numpy as np

from toolchain.energy.calls import Measure
from toolchain.energy.record import NOT_REQUESTED
from toolchain.records.profile import GroupEnergy

# Rounds of measurement. Five give a confidence interval with 4 degrees of freedom, within minutes that a user is
# willing to wait.
ROUNDS = 5

# Codes that a record gives as `reason`.
IN_REMAINDER = "in_remainder"
BY_TIME = "by_time"
TOO_FEW = "too_few_rounds"

# Runs the work to measure once.
Work = Callable[[], object]

# Returns a context that loads what the work needs, gives the work, and frees everything at its end.
Opened = Callable[[], AbstractContextManager[Work]]


@dataclass(frozen=True)
class Variant:
    """A changed call: with `times` more runs of a group, or without the group if `times` is -1.

    `open` loads what the call needs.
    """

    group: str
    times: int
    open: Opened

    def __str__(self) -> str:
        """Return a description for a line of progress."""
        return f"without {self.group}" if self.times < 0 else f"with {self.times} more runs of {self.group}"

    def cost(self, whole: float, found: float) -> float:
        """Return the cost of the group, from the cost of the whole call and that of this variant (`found`)."""
        return (found - whole) / self.times


@dataclass
class Rounds:
    """The measurements of all rounds. A value is None if its measurement failed.

    `whole`: cost of the whole call in each round.
    `groups`: group -> its cost in each round.
    `reason`: reason code of the last failed measurement.
    """

    whole: list[float | None] = field(default_factory=list)
    groups: dict[str, list[float | None]] = field(default_factory=dict)
    reason: str | None = None


def measure_variants(
    whole: Opened,
    variants: list[Variant],
    measure: Measure,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Rounds:
    """Measure the whole call and each variant once per round, in random order; stop if the first measurement fails."""
    works = {"": ("the whole call", whole)} | {one.group: (str(one), one.open) for one in variants}
    found = Rounds(groups={variant.group: [] for variant in variants})
    generator = np.random.default_rng(seed)
    for number in range(rounds):
        costs: dict[str, float | None] = {}
        for name in generator.permutation(list(works)):
            text, opened = works[name]
            progress(f"round {number + 1} of {rounds}: {text}")
            with opened() as work:
                costs[name], reason = measure(work)
            found.reason = reason or found.reason
            if costs[name] is None and not number and len(costs) == 1:
                return found
        base = costs.pop("")
        found.whole.append(base)
        for variant in variants:
            cost = costs[variant.group]
            found.groups[variant.group].append(None if base is None or cost is None else variant.cost(base, cost))
    return found


@dataclass(frozen=True)
class Energy:
    """The energy of each group, of the remainder that belongs to no group, and of the whole call."""

    groups: dict[str, GroupEnergy]
    remainder: GroupEnergy
    whole: GroupEnergy


def apportion(ms: dict[str, float], found: Rounds | None) -> Energy:
    """Return the energy of a call, of each group in `ms` (group -> ms per call), and of the remainder.

    An ablated group has the mean of its rounds. The rest is the energy of the call without that of the ablated groups.
    If all parts of the model were ablated, the rest becomes the remainder. Otherwise it is divided among the groups
    that could not be ablated, in proportion to their time (method `by_time`). Without a measurement, every energy is
    None, with a reason code.
    """
    if found is None or not any(value is not None for value in found.whole):
        nothing = _nothing(NOT_REQUESTED if found is None else found.reason or TOO_FEW)
        return Energy(dict.fromkeys(ms, nothing), nothing, nothing)
    groups = {group: _record(found.groups[group], "ablation", found.reason) for group in ms if group in found.groups}
    rest = [_rest(index, found, groups) for index in range(len(found.whole))]
    others = {group: time for group, time in ms.items() if group not in groups}
    if set(others) <= {"other"}:
        groups |= {group: _nothing(IN_REMAINDER) for group in others}
        remainder = _record(rest, "ablation", found.reason)
    else:
        total = sum(others.values())
        for group, time in others.items():
            shares = [None if value is None else value * time / total for value in rest]
            groups[group] = _record(shares, BY_TIME, found.reason)
        remainder = _nothing(BY_TIME)
    whole = _record(found.whole, "measured", found.reason)
    return Energy({group: groups[group] for group in ms}, remainder, whole)


def _rest(index: int, found: Rounds, groups: Collection[str]) -> float | None:
    """Return the cost of the whole call minus that of the ablated groups, in one round; None if one is missing."""
    values = [found.whole[index], *(found.groups[group][index] for group in groups)]
    known = [value for value in values if value is not None]
    return known[0] - sum(known[1:]) if len(known) == len(values) else None


def _record(values: list[float | None], method: str, reason: str | None) -> GroupEnergy:
    """Return the record of an energy: the mean over rounds and its 95 % interval by Student's t, from two rounds on."""
    known = [value for value in values if value is not None]
    if not known:
        return _nothing(reason or TOO_FEW)
    interval = None
    if len(known) > 1:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(known) - 1)) * stdev(known) / len(known) ** 0.5
        interval = [fmean(known) - half, fmean(known) + half]
    resolved = interval is not None and interval[0] > 0
    return {"energy_j": fmean(known), "energy_ci95_j": interval, "resolved": resolved, "method": method, "reason": None}


def _nothing(reason: str) -> GroupEnergy:
    return {"energy_j": None, "energy_ci95_j": None, "resolved": False, "method": "unavailable", "reason": reason}
