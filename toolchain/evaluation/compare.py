"""The comparison of two sets of predictions for the same rows: the drop of the metric, its bounds, and a verdict.

Drops are in points, 1/100 of the task's primary metric. A negative drop is a gain.
"""

import math
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np

from toolchain.data.metrics import METRICS, SHARES, Values
from toolchain.errors import InputError
from toolchain.evaluation.statistics import POWER, mcnemar, metric_drop, normal_quantile, paired_drop
from toolchain.heads.predictions import Predictions, same
from toolchain.records.comparison import Comparison as ComparisonRecord
from toolchain.records.comparison import Verdict

# In points: the rounding error of a difference of two floats.
ROUNDING = 1e-9

# If a clear verdict needs more than this many times the rows at hand, no number of rows is advised.
MOST_TIMES = 1e4

# How rows of several labels are counted.
SEVERAL = "A row of several labels or tags is right if all of them are, and changes with any of them."

PASSES: Verdict = "passes"
FAILS: Verdict = "fails"
UNKNOWN: Verdict = "cannot tell"


@dataclass(frozen=True)
class Flips:
    """The number of rows that became wrong, of rows that became right, and of all rows with a label that changed.

    A row of several labels is right if all of them are.
    """

    lost: int
    gained: int
    changed: int


@dataclass(frozen=True)
class Comparison:
    """The drop from a baseline to a candidate. Each of `bounds_points` is one-sided at `confidence`."""

    metric: str
    n: int
    baseline: float
    candidate: float
    drop_points: float
    bounds_points: tuple[float, float]
    confidence: float
    flips: Flips | None
    p_value: float | None
    detectable_points: float | None
    max_drop_points: float | None = None
    verdict: Verdict | None = None
    rows_to_tell: int | None = None

    def to_json(self) -> ComparisonRecord:
        """Return the record that `--json` prints. A bound that is not finite becomes null."""
        bounds = [bound if math.isfinite(bound) else None for bound in self.bounds_points]
        return cast(ComparisonRecord, {**asdict(self), "bounds_points": bounds})


def compare(
    baseline: Predictions,
    candidate: Predictions,
    metric: str,
    *,
    confidence: float = 0.95,
    max_drop: float | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare predictions for the same rows by one metric. With `max_drop`, in points, there is a verdict.

    `metric_drop` says which interval a metric has. Accuracy also has McNemar's exact test.

    Raises:
        InputError: the rows are not the same.
    """
    references = baseline.references
    if len(references) != len(candidate.references) or not np.array_equal(references, candidate.references):
        raise InputError("compare: the labels differ, so the rows are not the same. Evaluate both on the same rows.")
    function, n = METRICS[metric], len(references)
    values = [function(references, found.predicted) for found in (baseline, candidate)]
    drop = 100 * (values[0] - values[1])
    flips = count_flips(references, baseline.predicted, candidate.predicted)
    both = baseline.predicted, candidate.predicted
    bounds = metric_drop(metric, references, *both, confidence=confidence, seed=seed)
    low, high = (100 * bound for bound in bounds)
    counted = flips if metric in SHARES else None
    verdict, rows_to_tell = _judge(drop, high, n, max_drop, counted, confidence)
    return Comparison(
        metric=metric,
        n=n,
        baseline=values[0],
        candidate=values[1],
        drop_points=drop,
        bounds_points=(low, high),
        confidence=confidence,
        flips=flips,
        p_value=mcnemar(counted.lost, counted.gained) if counted else None,
        detectable_points=_detectable(high - low, confidence),
        max_drop_points=max_drop,
        verdict=verdict,
        rows_to_tell=rows_to_tell,
    )


def count_flips(references: Values, baseline: Values, candidate: Values) -> Flips | None:
    """Return the numbers of changed rows, or None for numbers, which have no labels."""
    right, still, unchanged = same(baseline, references), same(candidate, references), same(baseline, candidate)
    if right is None or still is None or unchanged is None:
        return None
    return Flips(int((right & ~still).sum()), int((~right & still).sum()), int((~unchanged).sum()))


def _detectable(width: float, confidence: float) -> float | None:
    """Return the smallest true drop, in points, that this number of rows would show with probability POWER.

    `width` is that of the interval, in points. None if it is not finite.
    """
    if not math.isfinite(width):
        return None
    z = normal_quantile(confidence)
    return width / 2 * (z + normal_quantile(POWER)) / z


def _judge(
    drop: float, high: float, n: int, max_drop: float | None, flips: Flips | None, confidence: float
) -> tuple[Verdict | None, int | None]:
    """Return the verdict, and if it is UNKNOWN about how many rows would give a clear one.

    Both are None without `max_drop`.
    """
    if max_drop is None:
        return None, None
    if drop > max_drop + ROUNDING:
        return FAILS, None
    if high <= max_drop + ROUNDING:
        return PASSES, None

    def bound(times: float) -> float:
        """Return the upper bound for `times` as many rows with the same shares of flips."""
        if flips:
            return 100 * paired_drop(flips.lost * times, flips.gained * times, n * times, confidence=confidence)[1]
        return drop + (high - drop) / math.sqrt(times)

    low, times = 1.0, 2.0
    while bound(times) > max_drop and times < MOST_TIMES:
        low, times = times, 2 * times
    if times >= MOST_TIMES:
        return UNKNOWN, None
    while (times - low) * n > 1:
        middle = (low + times) / 2
        low, times = (low, middle) if bound(middle) <= max_drop else (middle, times)
    return UNKNOWN, math.ceil(n * times)
