"""Two sets of predictions for the same rows: how far the second drops, how sure that is, and a verdict.

Drops are in points, 1/100 of the task's primary metric; a negative drop is a gain.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolchain.data.metrics import METRICS, Values
from toolchain.errors import InputError
from toolchain.evaluation.statistics import POWER, bootstrap_drop, mcnemar, normal_quantile, paired_drop
from toolchain.runtimes.distance import Logits

ROUNDING = 1e-9
"""Points by which a difference of two floats may seem larger than it is."""

MOST_TIMES = 1e4
"""More rows than this many times those at hand are no advice."""

PASSES, FAILS, UNKNOWN = "passes", "fails", "cannot tell"


@dataclass(frozen=True)
class Predictions:
    """What was predicted for each row, beside what it should be.

    Both are classes int64 [rows] in the task's order, or numbers float64 [rows]; `logits` are float32
    [rows, classes] in the model's order.
    """

    references: Values
    predicted: Values
    logits: Logits


@dataclass(frozen=True)
class Flips:
    """Rows that went wrong, rows that came right, and rows whose label changed at all."""

    lost: int
    gained: int
    changed: int


@dataclass(frozen=True)
class Comparison:
    """The drop from a baseline to a candidate. `bounds_points` are one-sided, each at `confidence`."""

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
    verdict: str | None = None
    rows_to_tell: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form that `--json` prints; a bound that is not finite is null."""
        bounds = [bound if math.isfinite(bound) else None for bound in self.bounds_points]
        return {**asdict(self), "bounds_points": bounds}


def compare(
    baseline: Predictions,
    candidate: Predictions,
    metric: str,
    *,
    confidence: float = 0.95,
    max_drop: float | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare predictions for the same rows by one metric; with `max_drop`, in points, give a verdict.

    Accuracy: Tango's interval and McNemar's exact test. Other metrics: paired bootstrap over rows; where no label
    changed at all a bootstrap would be certain, so they get accuracy's interval.

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
    if metric == "accuracy" or (flips and not flips.changed):
        assert flips
        bounds = paired_drop(flips.lost, flips.gained, n, confidence=confidence)
    else:
        both = baseline.predicted, candidate.predicted
        bounds = bootstrap_drop(function, references, *both, confidence=confidence, seed=seed)
    low, high = (100 * bound for bound in bounds)
    return Comparison(
        metric=metric,
        n=n,
        baseline=values[0],
        candidate=values[1],
        drop_points=drop,
        bounds_points=(low, high),
        confidence=confidence,
        flips=flips,
        p_value=mcnemar(flips.lost, flips.gained) if flips and metric == "accuracy" else None,
        detectable_points=_detectable(high - low, confidence),
        **_judge(drop, high, n, max_drop, flips if metric == "accuracy" else None, confidence),
    )


def count_flips(references: Values, baseline: Values, candidate: Values) -> Flips | None:
    """Count flips of classes; a regression has none."""
    if references.dtype.kind == "f":
        return None
    right, still = baseline == references, candidate == references
    return Flips(int((right & ~still).sum()), int((~right & still).sum()), int((baseline != candidate).sum()))


def _detectable(width: float, confidence: float) -> float | None:
    """Return the smallest true drop that this many rows would show with a chance of POWER."""
    if not math.isfinite(width):
        return None
    z = normal_quantile(confidence)
    return width / 2 * (z + normal_quantile(POWER)) / z


def _judge(
    drop: float, high: float, n: int, max_drop: float | None, flips: Flips | None, confidence: float
) -> dict[str, Any]:
    """Return the verdict, and about how many rows would give a clear one if there is none."""
    if max_drop is None:
        return {}
    if drop > max_drop + ROUNDING:
        return {"max_drop_points": max_drop, "verdict": FAILS}
    if high <= max_drop + ROUNDING:
        return {"max_drop_points": max_drop, "verdict": PASSES}

    def bound(times: float) -> float:
        """Return the upper bound if there were so many times the rows, and all went on as before."""
        if flips:
            return 100 * paired_drop(flips.lost * times, flips.gained * times, n * times, confidence=confidence)[1]
        return drop + (high - drop) / math.sqrt(times)

    low, times = 1.0, 2.0
    while bound(times) > max_drop and times < MOST_TIMES:
        low, times = times, 2 * times
    if times >= MOST_TIMES:
        return {"max_drop_points": max_drop, "verdict": UNKNOWN, "rows_to_tell": None}
    while (times - low) * n > 1:
        middle = (low + times) / 2
        low, times = (low, middle) if bound(middle) <= max_drop else (middle, times)
    return {"max_drop_points": max_drop, "verdict": UNKNOWN, "rows_to_tell": math.ceil(n * times)}
