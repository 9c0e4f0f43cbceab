"""How sure a measured metric is, and a measured difference of two on the same rows."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from toolchain.data.metrics import Values

RESAMPLES = 1000
MEAN_RESAMPLES = 10_000
"""Of a few values far percentiles are taken, and a mean costs nothing."""

DRAWS_AT_ONCE = 1_000_000
"""Bounds the memory, whatever the number of rows."""

POWER = 0.8
"""The chance of being seen that a minimum detectable difference is stated for."""

Metric = Callable[[Values, Values], float]


def bootstrap_ci95(metric: Metric, references: Values, predictions: Values, *, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a metric over rows (Efron, 1979).

    One row tells nothing of how others would vary, so its interval is the point itself.
    """
    if len(references) < 2:
        point = metric(references, predictions)
        return point, point
    found = _bootstrap((references, predictions), metric, seed=seed)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def bootstrap_drop(
    metric: Metric, references: Values, baseline: Values, candidate: Values, *, confidence: float, seed: int
) -> tuple[float, float]:
    """Return the one-sided bounds, each at `confidence`, of metric(baseline) - metric(candidate).

    Both are computed on the same resampled rows, so what is hard for both cancels.
    """

    def drop(references: Values, baseline: Values, candidate: Values) -> float:
        return metric(references, baseline) - metric(references, candidate)

    if len(references) < 2:
        return -math.inf, math.inf
    found = _bootstrap((references, baseline, candidate), drop, seed=seed).bootstrap_distribution
    low, high = np.quantile(found, [1 - confidence, confidence])
    return float(low), float(high)


def bootstrap_mean_ci95(values: Sequence[float], *, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of two values or more.

    The percentile interval of a few values is too narrow: it has the normal quantile for Student's, and the deviation
    divided by n for n - 1. So percentiles further out are taken, which put both right: the expanded percentile
    interval of Hesterberg (What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015).
    """
    n = len(values)
    out = math.sqrt(n / (n - 1)) * student_quantile(0.975, n - 1)
    sample = (np.asarray(values, np.float64),)
    found = _bootstrap(sample, np.mean, seed=seed, resamples=MEAN_RESAMPLES, vectorized=True)
    low, high = np.quantile(found.bootstrap_distribution, [normal_probability(-out), normal_probability(out)])
    return float(low), float(high)


def detectable_mean(values: Sequence[float]) -> float:
    """Return the smallest true mean that a two-sided test at 0.05 of values like these shows with a chance of POWER.

    (t[0.975, n - 1] + t[POWER, n - 1]) s / sqrt(n): the usual approximation of the power of a paired t-test, with
    Student's quantiles instead of those of the noncentral t. Two values or more.
    """
    n = len(values)
    quantiles = student_quantile(0.975, n - 1) + student_quantile(POWER, n - 1)
    return quantiles * float(np.std(values, ddof=1)) / math.sqrt(n)


def _bootstrap(
    samples: tuple[Values, ...],
    statistic: Callable[..., Any],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    vectorized: bool = False,
) -> Any:
    from scipy.stats import bootstrap

    with warnings.catch_warnings():  # a resample can hold one class only
        warnings.simplefilter("ignore")
        return bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=vectorized,
            method="percentile",
            n_resamples=resamples,
            batch=max(1, DRAWS_AT_ONCE // len(samples[0])),
            rng=np.random.default_rng(seed),
        )


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact two-sided p-value that rows are lost and gained equally often (McNemar, 1947)."""
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def paired_drop(lost: float, gained: float, rows: float, *, confidence: float) -> tuple[float, float]:
    """Return the one-sided bounds, each at `confidence`, of (lost - gained) / rows.

    Tango's score interval for paired proportions (Statistics in Medicine 17, 1998, 891-908). Unlike Wald's it
    keeps its coverage for small counts, and has a width even where no row was lost or gained.
    """
    from scipy.optimize import brentq

    z = normal_quantile(confidence)
    drop = (lost - gained) / rows

    def excess(bound: float, side: int) -> float:
        return _score(bound, lost, gained, rows) - side * z

    low = -1.0 if drop == -1 else float(brentq(excess, -1 + 1e-12, drop, args=(1,)))
    high = 1.0 if drop == 1 else float(brentq(excess, drop, 1 - 1e-12, args=(-1,)))
    return low, high


def _score(drop: float, lost: float, gained: float, rows: float) -> float:
    """Return Tango's score statistic of a supposed drop: standard normal if it is the true one."""
    linear = -lost - gained + (2 * rows - lost + gained) * drop
    constant = -gained * drop * (1 - drop)
    likeliest = (math.sqrt(max(0.0, linear**2 - 8 * rows * constant)) - linear) / (4 * rows)  # share gained
    variance = rows * (2 * likeliest + drop * (1 - drop))
    distance = lost - gained - rows * drop
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def normal_quantile(probability: float) -> float:
    """Return the standard normal quantile."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def normal_probability(value: float) -> float:
    """Return the chance of a standard normal number below `value`."""
    from statistics import NormalDist

    return NormalDist().cdf(value)


def student_quantile(probability: float, freedom: int) -> float:
    """Return Student's quantile at so many degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(probability, freedom))
