"""Compare two contenders block by block: the ratio of their joules per row, its interval, and whether it is resolved.

The two windows of a block are measured within minutes, so a slow drift, such as that of temperature, cancels in their
ratio.
"""

import math
from collections.abc import Sequence

import numpy as np

from toolchain.energy.record import LEAST_WINDOWS
from toolchain.evaluation.statistics import bootstrap_mean_ci95, detectable_mean
from toolchain.records.energy import WindowRecord
from toolchain.records.energy_comparison import Pairing

# Reason codes: why a difference is not resolved.
NO_BLOCK, TOO_FEW, HOLDS_1, BELOW_MDD = "no_block", "too_few_blocks", "interval_holds_1", "below_mdd"


def pair(baseline: Sequence[WindowRecord], candidate: Sequence[WindowRecord], *, seed: int) -> Pairing:
    """Return the comparison of two contenders by their joules per row; window k of each belongs to block k.

    A block is left out if either window was dropped or has 0 J, as from a broken sensor. The ratio, candidate to
    baseline, is the exponential of the mean log ratio over blocks, so swapping the contenders inverts it. The
    difference is resolved if the 95 % interval of the ratio (a bootstrap over blocks) excludes 1 and the difference is
    at least the minimum detectable one.
    """
    both = [pair for pair in zip(baseline, candidate, strict=True) if all(one["per_inference_j"] for one in pair)]
    dropped = len(baseline) - len(both)
    if not both:
        return unresolved(NO_BLOCK, dropped=dropped)
    logs = _log_ratios([(one["per_inference_j"] or 0.0, other["per_inference_j"] or 0.0) for one, other in both])
    mean = float(np.mean(logs))
    detectable = detectable_mean(logs) if len(both) > 1 else None
    interval = bootstrap_mean_ci95(logs, seed=seed) if len(both) >= LEAST_WINDOWS else None
    reason = _doubt(mean, interval, detectable)
    throughputs = _log_ratios([(_throughput_per_s(one), _throughput_per_s(other)) for one, other in both])
    powers = _log_ratios([(one["mean_power_w"] or 0.0, other["mean_power_w"] or 0.0) for one, other in both])
    return {
        "verdict": "not resolved" if reason else "resolved",
        "reason": reason,
        "blocks": len(both),
        "dropped": dropped,
        "ratio": math.exp(mean),
        "ratio_ci95": [math.exp(bound) for bound in interval] if interval else None,
        "difference_percent": _percent(mean),
        "mdd_percent": None if detectable is None else abs(_percent(math.copysign(detectable, mean))),
        "throughput_ratio": math.exp(float(np.mean(throughputs))),
        "mean_power_ratio": math.exp(float(np.mean(powers))),
    }


def unresolved(reason: str | None, *, dropped: int) -> Pairing:
    """Return the comparison of two contenders that have no block in common, with a reason code and without figures."""
    return {
        "verdict": "not resolved",
        "reason": reason,
        "blocks": 0,
        "dropped": dropped,
        "ratio": None,
        "ratio_ci95": None,
        "difference_percent": None,
        "mdd_percent": None,
        "throughput_ratio": None,
        "mean_power_ratio": None,
    }


def _throughput_per_s(window: WindowRecord) -> float:
    return window["inferences"] / window["seconds"]


def _log_ratios(pairs: list[tuple[float, float]]) -> list[float]:
    return [math.log(other / one) for one, other in pairs]


def _percent(log_ratio: float) -> float:
    return 100 * math.expm1(log_ratio)


def _doubt(mean: float, interval: tuple[float, float] | None, detectable: float | None) -> str | None:
    """Return the reason code for a mean log ratio that is not resolved, or None if it is resolved."""
    if interval is None or detectable is None:
        return TOO_FEW
    if interval[0] <= 0 <= interval[1]:
        return HOLDS_1
    return BELOW_MDD if abs(mean) < detectable else None
