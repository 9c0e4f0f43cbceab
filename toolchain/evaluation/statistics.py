"""Confidence intervals of a metric, and of the difference of two metrics on the same rows."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from toolchain.data.metrics import Values

# Enough for the 2.5 % and 97.5 % percentiles of a metric over rows.
RESAMPLES = 1000

# The interval of the mean of a few values needs percentiles further in the tails, and a mean is cheap to compute.
MEAN_RESAMPLES = 10_000

# Resampled values that are held at once. It bounds the memory for any number of rows.
DRAWS_AT_ONCE = 1_000_000

# The power (probability of detection) that a minimum detectable difference is stated for; 0.8 is the usual choice.
POWER = 0.8

Metric = Callable[[Values, Values], float]


def bootstrap_ci95(metric: Metric, references: Values, predictions: Values, *, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a metric over rows (Efron, 1979): low and high end.

    With fewer than two rows there is no variation to estimate, so both ends are the metric itself.
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

    Both metrics are computed on the same resampled rows, so the difficulty of the rows cancels out. With fewer than two
    rows the bounds are infinite.
    """

    def drop(references: Values, baseline: Values, candidate: Values) -> float:
        return metric(references, baseline) - metric(references, candidate)

    if len(references) < 2:
        return -math.inf, math.inf
    found = _bootstrap((references, baseline, candidate), drop, seed=seed).bootstrap_distribution
    low, high = np.quantile(found, [1 - confidence, confidence])
    return float(low), float(high)


def bootstrap_mean_ci95(values: Sequence[float], *, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of at least two values: low and high end.

    The plain percentile interval of a few values is too narrow: it uses the normal quantile instead of Student's, and
    the variance with the divisor n instead of n - 1. This is the expanded percentile interval, whose percentiles lie
    further in the tails and correct both (Hesterberg, What Teachers Should Know About the Bootstrap, The American
    Statistician 69, 2015).
    """
    n = len(values)
    out = math.sqrt(n / (n - 1)) * student_quantile(0.975, n - 1)
    sample = (np.asarray(values, np.float64),)
    found = _bootstrap(sample, np.mean, seed=seed, resamples=MEAN_RESAMPLES, vectorized=True)
    low, high = np.quantile(found.bootstrap_distribution, [normal_probability(-out), normal_probability(out)])
    return float(low), float(high)


def detectable_mean(values: Sequence[float]) -> float:
    """Return the smallest true mean that a two-sided t-test at level 0.05 detects with probability POWER.

    The values, at least two, give the standard deviation s. The formula (t[0.975, n - 1] + t[POWER, n - 1]) s / sqrt(n)
    is the usual approximation of the power of a paired t-test; it uses Student's t instead of the noncentral t.
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
    """Return scipy's BootstrapResult, which has no types, of a statistic over paired samples."""
    from scipy.stats import bootstrap

    with warnings.catch_warnings():  # scikit-learn and scipy warn of a resample with a single class
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

    It is Tango's score interval for paired proportions (Statistics in Medicine 17, 1998, 891-908). Unlike Wald's
    interval it keeps its coverage for small counts, and its width is not 0 if no row was lost or gained. The counts may
    be fractions, to extrapolate to other numbers of rows.
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
    """Return Tango's score statistic of a hypothetical drop. It is standard normal if that is the true drop."""
    linear = -lost - gained + (2 * rows - lost + gained) * drop
    constant = -gained * drop * (1 - drop)
    # The maximum likelihood estimate of the share of gained rows under the hypothesis.
    likeliest = (math.sqrt(max(0.0, linear**2 - 8 * rows * constant)) - linear) / (4 * rows)
    variance = rows * (2 * likeliest + drop * (1 - drop))
    distance = lost - gained - rows * drop
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def normal_quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution at a probability."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def normal_probability(value: float) -> float:
    """Return the probability that a standard normal variable is below `value`."""
    from statistics import NormalDist

    return NormalDist().cdf(value)


def student_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution with `freedom` degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(probability, freedom))
