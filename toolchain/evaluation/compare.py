"""The comparison of two sets of predictions for the same rows: the drop of a metric, its bounds, and a verdict.

Drops are in points; one point is 0.01 of the metric. A negative drop is a gain. The verdict says whether the drop
exceeds the allowed maximum (`--max-drop`).
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

# Tolerance in points for the rounding error of the difference of two floats.
ROUNDING = 1e-9

# No number of rows is advised if a clear verdict needs more than this many times the rows that there are.
MOST_TIMES = 1e4

# Remark on a comparison of models that give a row several labels or tags.
SEVERAL = "A row with several labels or tags counts as right if all of them are right, and as changed if any changed."

PASSES: Verdict = "passes"
FAILS: Verdict = "fails"
UNKNOWN: Verdict = "cannot tell"


@dataclass(frozen=True)
class Flips:
    """Counts of the rows whose prediction differs between baseline and candidate.

    `lost` rows became wrong, `gained` rows became right, and `changed` counts all rows whose label differs.
    A row with several labels is right if all of them are right.
    """

    lost: int
    gained: int
    changed: int


@dataclass(frozen=True)
class Comparison:
    """The drop of a metric from a baseline to a candidate on the same `n` rows.

    `bounds_points` are the lower and the upper bound of the drop, each one-sided at `confidence`. The other fields have
    the meaning of the same keys in toolchain/records/comparison.py.
    """

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
        """Return the comparison as a JSON record. A bound that is not finite becomes null."""
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
    """Return the comparison of a candidate's predictions with a baseline's, on the same rows and by one metric.

    With `max_drop`, in points, the comparison has a verdict. `metric_drop` says how each metric's interval is computed.
    For accuracy and subset accuracy there is also the p-value of McNemar's exact test.

    Raises:
        InputError: the reference labels differ, so the rows are not the same.
    """
    references = baseline.references
    if len(references) != len(candidate.references) or not np.array_equal(references, candidate.references):
        raise InputError(
            "compare: the reference labels differ, so the rows are not the same. Evaluate both on the same rows."
        )
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
    """Return how many rows became wrong, became right, and changed; None if predictions are numbers, not labels."""
    right, still, unchanged = same(baseline, references), same(candidate, references), same(baseline, candidate)
    if right is None or still is None or unchanged is None:
        return None
    return Flips(int((right & ~still).sum()), int((~right & still).sum()), int((~unchanged).sum()))


def _detectable(width: float, confidence: float) -> float | None:
    """Return the smallest true drop, in points, that a comparison on these rows detects with probability POWER.

    `width` is the width of the drop's confidence interval, in points. If it is not finite, the result is None.
    """
    if not math.isfinite(width):
        return None
    z = normal_quantile(confidence)
    return width / 2 * (z + normal_quantile(POWER)) / z


def _judge(
    drop: float, high: float, n: int, max_drop: float | None, flips: Flips | None, confidence: float
) -> tuple[Verdict | None, int | None]:
    """Return the verdict and, if it is UNKNOWN, about how many rows would give a clear one.

    `high` is the upper bound of the drop, in points like `drop` and `max_drop`. The number of rows is None if the
    verdict is clear, or if even MOST_TIMES as many rows would not be enough. Without `max_drop`, both results are None.
    """
    if max_drop is None:
        return None, None
    if drop > max_drop + ROUNDING:
        return FAILS, None
    if high <= max_drop + ROUNDING:
        return PASSES, None

    def bound(times: float) -> float:
        """Return the upper bound of the drop, in points, for `times` as many rows with the same fractions of flips."""
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
