"""What each group costs, by taking it away: the whole and its variants, measured in turn, round after round.

energy(group) = whole - without it, or (with it k times more - whole) / k. The order within a round is random, so that
no drift of temperature or clocks falls on one variant, and differences are taken within a round, where it cancels.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import numpy as np

from toolchain.energy.calls import Measure
from toolchain.energy.record import NOT_REQUESTED

ROUNDS = 5
IN_REMAINDER = "in_remainder"
BY_TIME = "by_time"
TOO_FEW = "too_few_rounds"

Work = Callable[[], object]
"""One call of the work to measure."""

Opened = Callable[[], AbstractContextManager[Work]]
"""Loads what the work needs, and frees it when the context is left."""


@dataclass(frozen=True)
class Variant:
    """The whole work with a group run `times` more; -1 stands for the whole without it."""

    group: str
    times: int
    open: Opened

    def __str__(self) -> str:
        """Return what it is, for a line on how far the measurement is."""
        return f"without {self.group}" if self.times < 0 else f"with {self.group} {self.times} more times"

    def cost(self, whole: float, found: float) -> float:
        """Return what the group costs in the whole."""
        return (found - whole) / self.times


@dataclass
class Rounds:
    """What was measured: of each round the whole, and what each group costs; None where one is missing.

    `reason` says why a measurement gave nothing, the last time that one did.
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
    tell: Callable[[str], None] = lambda line: None,
) -> Rounds:
    """Measure the whole and each variant once a round, in random order; nothing further if the first gives nothing."""
    works = {"": ("the whole", whole)} | {one.group: (str(one), one.open) for one in variants}
    found = Rounds(groups={variant.group: [] for variant in variants})
    generator = np.random.default_rng(seed)
    for number in range(rounds):
        costs: dict[str, float | None] = {}
        for name in generator.permutation(list(works)):
            text, opened = works[name]
            tell(f"round {number + 1} of {rounds}: {text}")
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


def apportion(ms: dict[str, float], found: Rounds | None) -> dict[str, Any]:
    """Return the joules a call of the whole, of each group in `ms` (milliseconds a call), and of the remainder.

    A group that was ablated has the mean of its rounds. If every part of the model was, what is left over is the
    remainder. If not, the groups that could not be ablated share what is left over by their time, and are labelled so.

    Returns:
        {"groups": {group: record}, "remainder": record, "whole": record}, each record
        {"energy_j", "energy_ci95_j", "resolved", "method", "reason"}; null with a reason where nothing was measured,
        and not resolved where the interval holds 0.
    """
    if found is None or not any(value is not None for value in found.whole):
        nothing = _nothing(NOT_REQUESTED if found is None else found.reason or TOO_FEW)
        return {"groups": dict.fromkeys(ms, nothing), "remainder": nothing, "whole": nothing}
    groups = {group: _record(found.groups[group], "ablation", found.reason) for group in ms if group in found.groups}
    left = [_left(index, found, groups) for index in range(len(found.whole))]
    others = {group: time for group, time in ms.items() if group not in groups}
    if set(others) <= {"other"}:
        groups |= {group: _nothing(IN_REMAINDER) for group in others}
        remainder = _record(left, "ablation", found.reason)
    else:
        total = sum(others.values())
        for group, time in others.items():
            shares = [None if value is None else value * time / total for value in left]
            groups[group] = _record(shares, BY_TIME, found.reason)
        remainder = _nothing(BY_TIME)
    whole = _record(found.whole, "measured", found.reason)
    return {"groups": {group: groups[group] for group in ms}, "remainder": remainder, "whole": whole}


def _left(index: int, found: Rounds, groups: dict[str, Any]) -> float | None:
    """Return what one round's whole costs beyond the groups that were ablated."""
    values = [found.whole[index], *(found.groups[group][index] for group in groups)]
    known = [value for value in values if value is not None]
    return known[0] - sum(known[1:]) if len(known) == len(values) else None


def _record(values: list[float | None], method: str, reason: str | None) -> dict[str, Any]:
    """Return the mean of the rounds and its 95 % interval by Student's t; of fewer than two rounds there is none."""
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


def _nothing(reason: str) -> dict[str, Any]:
    return {"energy_j": None, "energy_ci95_j": None, "resolved": False, "method": "unavailable", "reason": reason}
