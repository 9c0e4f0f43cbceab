"""Confidence intervals of a metric, and of the difference of a metric between two models on the same rows.

Some intervals are percentiles of random draws. Each draw gives the rows (or queries, or cells of a confusion table)
random weights and computes the metric with these weights.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.data.metrics import (
    CORRELATIONS,
    METRICS,
    OF_COUNTS,
    OF_QUERIES,
    OF_TABLES,
    SHARES,
    Tables,
    Values,
    row_counts,
)
from toolchain.heads.predictions import same

# Bootstrap resamples. This number is enough for the 2.5 % and 97.5 % percentiles of a metric over rows.
RESAMPLES = 1000

# Bootstrap resamples for the mean of a few values. Its interval needs percentiles further out in the tails, and a mean
# is cheap to compute.
MEAN_RESAMPLES = 10_000

# Least number of pairs for the bootstrap of a correlation. With fewer, the interval is far too narrow. It has no width
# at all if the pairs lie on a line, as two pairs always do.
LEAST_PAIRS = 10

# If the percentiles of a bootstrap differ by less than this, they differ only by rounding, and the interval has no
# width.
ROUNDING = 1e-12

# TABLE_DRAWS: draws of a confusion table. They are cheap, so there are enough for percentiles with little noise. DRAWN:
# limit of the numbers drawn in total. It leaves a table of a hundred classes 1,000 to 5,000 draws.
TABLE_DRAWS, DRAWN = 10_000, 50_000_000

# Most resampled values in memory at once, whatever the number of rows.
DRAWS_AT_ONCE = 1_000_000

# The power (probability of detection) for which the minimum detectable difference is computed; 0.8 is the usual choice.
POWER = 0.8


def metric_ci95(name: str, references: Values, predictions: Values, *, seed: int) -> tuple[float, float]:
    """Return the lower and the upper end of the 95 % confidence interval of the metric `name` over rows.

    No interval has a width of 0, even if every row is right:

    * accuracy, subset accuracy: Wilson's score interval (Journal of the American Statistical Association 22, 1927).
    * F1, Matthews' correlation: percentiles over draws of the confusion table, see `_draws`.
    * micro, macro and entity F1: percentiles over draws of rows, see `_draws_of_rows`; (0, 1) if no row has a label.
    * metrics of rankings: percentiles over draws of queries, see `_draws_of_queries`.
    * correlations: the percentile bootstrap (Efron, 1979), or `_beside_perfect` for a correlation of 1 or -1; (-1, 1)
      with fewer than LEAST_PAIRS rows, or if the references or the predictions are constant.
    """
    point = METRICS[name](references, predictions)
    if name in SHARES:
        return wilson_ci95(int(_right(references, predictions).sum()), len(references))
    if name in OF_TABLES:
        found = _draws(name, references, (predictions,), seed=seed)[0]
    elif name in OF_COUNTS:
        if not references.any():
            return 0.0, 1.0
        found = _draws_of_rows(name, references, (predictions,), seed=seed)[0]
    elif name in OF_QUERIES:
        found = _draws_of_queries(name, references, (predictions,), seed=seed)[0]
    elif _says_nothing(references, predictions):
        return -1.0, 1.0
    else:
        found = _bootstrap((references, predictions), METRICS[name], seed=seed).bootstrap_distribution
    low, high = np.quantile(found, [0.025, 0.975])
    if name in CORRELATIONS and high - low < ROUNDING:
        low, high = _beside_perfect(point, len(references))
    return min(float(low), point), max(float(high), point)


def _right(references: Values, predictions: Values) -> NDArray[np.bool_]:
    """Return which rows are predicted correctly, bool [rows]. Predictions must be labels, not numbers."""
    right = same(predictions, references)
    assert right is not None, "a share is of labels"
    return right


def _says_nothing(references: Values, predictions: Values) -> bool:
    """Return whether the data say nothing about a correlation: rows are too few, or one of the arrays is constant."""
    return len(references) < LEAST_PAIRS or not np.ptp(references) or not np.ptp(predictions)


def _beside_perfect(correlation: float, rows: int) -> tuple[float, float]:
    """Return a 95 % interval of a correlation that is 1 or -1 on at least 4 rows.

    If all rows lie on a line, every resample of the bootstrap has the same correlation, so its interval has no width.
    This is Fisher's interval (Biometrika 10, 1915) for the largest rank correlation below 1: two neighbours in the
    order of n rows are swapped, which gives 1 - 12 / (n (n^2 - 1)). For -1 it is mirrored.
    """
    nearest = 1 - 12 / (rows * (rows**2 - 1))
    low = math.tanh(math.atanh(nearest) - normal_quantile(0.975) / math.sqrt(rows - 3))
    return (low, 1.0) if correlation > 0 else (-1.0, -low)


def wilson_ci95(right: int, rows: int) -> tuple[float, float]:
    """Return the lower and the upper end of Wilson's 95 % score interval of the proportion `right` / `rows`."""
    from scipy.stats import binomtest

    interval = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def metric_drop(
    name: str, references: Values, baseline: Values, candidate: Values, *, confidence: float, seed: int
) -> tuple[float, float]:
    """Return the lower and the upper bound of metric(baseline) - metric(candidate), each one-sided at `confidence`.

    Both metrics are computed on the same rows, so the difficulty of the rows cancels out. The bounds depend on the
    metric:

    * accuracy, subset accuracy: Tango's interval, see `paired_drop`.
    * F1, Matthews' correlation: percentiles over draws of the table that counts references and both predictions.
    * micro, macro and entity F1: percentiles over draws of rows; infinite if no row has a label.
    * metrics of rankings: percentiles over draws of queries.
    * correlations: the paired bootstrap; infinite with fewer than LEAST_PAIRS rows, or if an array is constant.

    The draws and Tango's interval allow for changes that this sample happens to lack.
    """
    metric = METRICS[name]
    if name in SHARES:
        right, still = _right(references, baseline), _right(references, candidate)
        lost, gained = int((right & ~still).sum()), int((~right & still).sum())
        return paired_drop(lost, gained, len(references), confidence=confidence)
    if name in OF_COUNTS and not references.any():
        return -math.inf, math.inf
    if kind := next((kind for kind in (OF_TABLES, OF_COUNTS, OF_QUERIES) if name in kind), None):
        draws = _draws if kind is OF_TABLES else _draws_of_rows if kind is OF_COUNTS else _draws_of_queries
        first, second = draws(name, references, (baseline, candidate), seed=seed)
        found = first - second
    elif _says_nothing(references, baseline) or _says_nothing(references, candidate):
        return -math.inf, math.inf
    else:

        def drop(references: Values, baseline: Values, candidate: Values) -> float:
            return metric(references, baseline) - metric(references, candidate)

        found = _bootstrap((references, baseline, candidate), drop, seed=seed).bootstrap_distribution
    low, high = np.quantile(found, [1 - confidence, confidence])
    point = metric(references, baseline) - metric(references, candidate)
    return min(float(low), point), max(float(high), point)


def _draws(name: str, references: Values, predictions: tuple[Values, ...], *, seed: int) -> list[Tables]:
    """Return random values of a metric for each set of predictions, float64 [draws], from random confusion tables.

    The tables are drawn from the Dirichlet posterior of the real table's counts (Goutte and Gaussier, A Probabilistic
    Interpretation of Precision, Recall and F-score, ECIR 2005). The prior for two classes is Jeffreys': half a row in
    each cell. The prior for more classes has the same total weight. One row each is spread evenly over the cells where
    all predictions are right, where all make the same mistake, and, for two predictions, where only the first or only
    the second is right. So a draw can contain cases that the sample lacks, which a bootstrap of the rows cannot.
    """
    from scipy.sparse import coo_array

    cells, weights = _cells(references, predictions)
    classes = max(2, int(cells.max()) + 1)
    generator = np.random.default_rng(seed)
    one = np.ones(len(cells))
    tables = [  # [cells, classes * classes]
        coo_array((one, (np.arange(len(cells)), cells[:, 0] * classes + cells[:, at + 1])), (len(cells), classes**2))
        for at in range(len(predictions))
    ]
    draws = min(TABLE_DRAWS, max(RESAMPLES, DRAWN // len(cells)))
    at_once = max(1, DRAWS_AT_ONCE // max(len(cells), classes**2))
    found: list[list[Tables]] = [[] for _ in predictions]
    for start in range(0, draws, at_once):
        drawn = generator.gamma(weights, size=(min(at_once, draws - start), len(cells)))
        for values, table in zip(found, tables, strict=True):
            values.append(OF_TABLES[name]((drawn @ table.tocsr()).reshape(-1, classes, classes)))
    return [np.concatenate(values) for values in found]


def _draws_of_rows(name: str, references: Values, predictions: tuple[Values, ...], *, seed: int) -> list[Tables]:
    """Return random values of a multi-label F1, float64 [draws], for each set of predictions (one or two sets).

    Each draw gives every row a random weight, the same in both sets: the Bayesian bootstrap (Rubin, The Annals of
    Statistics 9, 1981). Rows have weights rather than labels, because the labels of a row are not independent. As in
    `_draws`, the prior adds one row of each kind that the sample may lack: all predictions are right, all are empty,
    and, for two predictions, one is right and the other is empty. Such a row has the average number of labels.
    """
    right, empty = row_counts(references, references), row_counts(references, np.zeros_like(references))
    average = [kind.mean(axis=0, keepdims=True) for kind in (right, empty)]
    kinds = [(0, 0), (1, 1), (0, 1), (1, 0)] if len(predictions) == 2 else [(0,), (1,)]
    counts = [
        np.concatenate([row_counts(references, one), *(average[kind[at]] for kind in kinds)])
        for at, one in enumerate(predictions)
    ]
    rows, generator = len(counts[0]), np.random.default_rng(seed)
    at_once = max(1, DRAWS_AT_ONCE // rows)
    found: list[list[Tables]] = [[] for _ in predictions]
    for start in range(0, RESAMPLES, at_once):
        drawn = generator.standard_exponential((min(at_once, RESAMPLES - start), rows))
        for values, own in zip(found, counts, strict=True):
            sums = (drawn @ own.reshape(rows, -1)).reshape(-1, *own.shape[1:])
            values.append(OF_COUNTS[name](sums))
    return [np.concatenate(values) for values in found]


def _draws_of_queries(name: str, references: Values, predictions: tuple[Values, ...], *, seed: int) -> list[Tables]:
    """Return random values of a metric of rankings, float64 [draws], for each set of predictions (one or two sets).

    As in `_draws_of_rows`, but queries have weights, because the texts of a query are not independent. The prior adds a
    query with the value 0 and one with the value 1. For two sets of predictions it also adds two queries with the
    value 1 in one set and 0 in the other.
    """
    values = np.stack([OF_QUERIES[name](references, one) for one in predictions])
    kinds = np.array([[0, 1, 0, 1], [0, 1, 1, 0]] if len(predictions) == 2 else [[0, 1]])
    every = np.concatenate([values, kinds], axis=1)
    generator, count = np.random.default_rng(seed), every.shape[1]
    at_once = max(1, DRAWS_AT_ONCE // count)
    found = []
    for start in range(0, RESAMPLES, at_once):
        drawn = generator.standard_exponential((min(at_once, RESAMPLES - start), count))
        found.append(drawn @ every.T / drawn.sum(axis=1, keepdims=True))
    return [*np.concatenate(found).T]


def _cells(references: Values, predictions: tuple[Values, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the cells of the confusion table, int64 [cells, 1 + predictions], and the weight of each.

    A cell is a reference class with a predicted class for each set of predictions. Its weight is the number of its rows
    plus that of the prior.
    """
    rows = np.stack([references, *predictions], axis=1).astype(np.int64)
    classes = max(2, int(rows.max()) + 1)
    right = np.arange(classes)
    one, other = np.nonzero(~np.eye(classes, dtype=bool))  # all pairs of different classes
    kinds = [[right] * rows.shape[1], [one] + [other] * len(predictions)]
    if len(predictions) == 2:
        kinds += [[one, one, other], [one, other, one]]
    prior = [np.stack(kind, axis=1) for kind in kinds]
    weights = np.concatenate([np.ones(len(rows)), *(np.full(len(kind), 1 / len(kind)) for kind in prior)])
    cells, inverse = np.unique(np.concatenate([rows, *prior]), axis=0, return_inverse=True)
    return np.asarray(cells, np.int64), np.asarray(np.bincount(inverse.ravel(), weights, len(cells)), np.float64)


def bootstrap_mean_ci95(values: Sequence[float], *, seed: int) -> tuple[float, float]:
    """Return the lower and the upper end of the 95 % bootstrap interval of the mean of at least two values.

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


def bootstrap_ratio_ci95(above: Values, below: Values, *, seed: int) -> tuple[float, float]:
    """Return the lower and the upper end of the 95 % bootstrap interval of sum(`above`) / sum(`below`).

    Both arrays have a value for each of at least two units, such as the loss and the tokens of each document. A
    resample draws units, so it takes both values of a unit together.
    """

    def ratio(one: Values, other: Values, axis: int) -> Values:
        found: Values = one.sum(axis=axis) / other.sum(axis=axis)
        return found

    found = _bootstrap((above, below), ratio, seed=seed, resamples=MEAN_RESAMPLES, vectorized=True)
    low, high = np.quantile(found.bootstrap_distribution, [0.025, 0.975])
    return float(low), float(high)


def detectable_mean(values: Sequence[float]) -> float:
    """Return the smallest true mean of n values that a two-sided t-test at level 0.05 detects with probability POWER.

    The n values, at least two, give the standard deviation s. The formula
    (t[0.975, n - 1] + t[POWER, n - 1]) s / sqrt(n) is the usual approximation: it uses Student's t instead of the
    noncentral t.
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
    """Return scipy's BootstrapResult (which has no type annotations) for a statistic of paired samples."""
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
    """Return the exact two-sided p-value of McNemar's test (1947), where `lost` rows became wrong and `gained` right.

    The null hypothesis is that rows become wrong as often as they become right.
    """
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def paired_drop(lost: float, gained: float, rows: float, *, confidence: float) -> tuple[float, float]:
    """Return the lower and the upper bound of (lost - gained) / rows, each one-sided at `confidence`.

    `lost` rows became wrong and `gained` rows became right. The bounds are Tango's score interval for paired
    proportions (Statistics in Medicine 17, 1998, 891-908). Unlike Wald's interval it keeps its coverage for small
    counts, and its width is not 0 if no row was lost or gained. The counts need not be integers, so that a caller can
    extrapolate to another number of rows.
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
    """Return Tango's score statistic for a true drop of `drop`; under that hypothesis it is standard normal."""
    linear = -lost - gained + (2 * rows - lost + gained) * drop
    constant = -gained * drop * (1 - drop)
    # The maximum likelihood estimate of the fraction of gained rows under the hypothesis.
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
