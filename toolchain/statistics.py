"""How sure a measured metric is."""

import warnings
from collections.abc import Callable

import numpy as np

from toolchain.metrics import Values

RESAMPLES = 1000
DRAWS_AT_ONCE = 1_000_000
"""Bounds the memory, whatever the number of rows."""


def bootstrap_ci95(
    metric: Callable[[Values, Values], float], references: Values, predictions: Values, *, seed: int
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a metric over rows (Efron, 1979).

    One row tells nothing of how others would vary, so its interval is the point itself.
    """
    from scipy.stats import bootstrap

    if len(references) < 2:
        point = metric(references, predictions)
        return point, point
    with warnings.catch_warnings():  # a resample can hold one class only
        warnings.simplefilter("ignore")
        found = bootstrap(
            (references, predictions),
            metric,
            paired=True,
            vectorized=False,
            method="percentile",
            n_resamples=RESAMPLES,
            batch=max(1, DRAWS_AT_ONCE // len(references)),
            rng=np.random.default_rng(seed),
        )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
