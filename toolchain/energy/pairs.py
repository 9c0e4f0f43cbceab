"""Two contenders' energy, block by block: their ratio, how sure it is, and whether that resolves a difference.

In a block both were measured within minutes, so what drifts slowly, as temperature does, cancels in its ratio.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolchain.energy.block import LEAST_WINDOWS
from toolchain.evaluation.statistics import bootstrap_mean_ci95, detectable_mean

RESOLVED, NOT_RESOLVED = "resolved", "not resolved"

NO_BLOCK, TOO_FEW, HOLDS_1, BELOW_MDD = "no_block", "too_few_blocks", "interval_holds_1", "below_mdd"
"""Why a difference is not resolved."""


@dataclass(frozen=True)
class Measured:
    """One contender in one block: joules a row, rows a second, watts."""

    per_inference_j: float
    throughput_per_s: float
    mean_power_w: float


Series = Sequence[Measured | None]
"""A contender's blocks in their order; None where its window was dropped."""


@dataclass(frozen=True)
class Pairing:
    """A candidate over its baseline: geometric means over the blocks that have both, null without any.

    `mdd_percent` is the smallest true difference that so many blocks would show with a chance of 0.8, in the
    direction of the one found; `dropped` counts blocks left out.
    """

    verdict: str
    reason: str | None
    blocks: int
    dropped: int
    ratio: float | None = None
    ratio_ci95: list[float] | None = None
    difference_percent: float | None = None
    mdd_percent: float | None = None
    throughput_ratio: float | None = None
    mean_power_ratio: float | None = None


def pair(baseline: Series, candidate: Series, *, seed: int) -> Pairing:
    """Compare joules a row by block.

    The ratio is exp of the mean log ratio, so that swapping the two inverts it. A difference is resolved if the
    interval, a bootstrap over blocks, leaves out 1 and the difference is at least what could be detected.
    """
    both = [(one, other) for one, other in zip(baseline, candidate, strict=True) if one and other]
    dropped = len(baseline) - len(both)
    if not both:
        return Pairing(NOT_RESOLVED, NO_BLOCK, 0, dropped)
    logs = _log_ratios([(one.per_inference_j, other.per_inference_j) for one, other in both])
    mean = float(np.mean(logs))
    detectable = detectable_mean(logs) if len(both) > 1 else None
    interval = bootstrap_mean_ci95(logs, seed=seed) if len(both) >= LEAST_WINDOWS else None
    reason = _doubt(mean, interval, detectable)
    speeds = _log_ratios([(one.throughput_per_s, other.throughput_per_s) for one, other in both])
    powers = _log_ratios([(one.mean_power_w, other.mean_power_w) for one, other in both])
    return Pairing(
        verdict=NOT_RESOLVED if reason else RESOLVED,
        reason=reason,
        blocks=len(both),
        dropped=dropped,
        ratio=math.exp(mean),
        ratio_ci95=[math.exp(bound) for bound in interval] if interval else None,
        difference_percent=_percent(mean),
        mdd_percent=None if detectable is None else abs(_percent(math.copysign(detectable, mean))),
        throughput_ratio=math.exp(float(np.mean(speeds))),
        mean_power_ratio=math.exp(float(np.mean(powers))),
    )


def _log_ratios(pairs: list[tuple[float, float]]) -> list[float]:
    return [math.log(other / one) for one, other in pairs]


def _percent(log_ratio: float) -> float:
    return 100 * math.expm1(log_ratio)


def _doubt(mean: float, interval: tuple[float, float] | None, detectable: float | None) -> str | None:
    """Return why a mean log ratio is not resolved, or None if it is."""
    if interval is None or detectable is None:
        return TOO_FEW
    if interval[0] <= 0 <= interval[1]:
        return HOLDS_1
    return BELOW_MDD if abs(mean) < detectable else None
