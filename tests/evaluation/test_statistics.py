import tracemalloc

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics

from toolchain.data.metrics import LABEL_SETS, METRICS, OF_QUERIES, OF_TABLES
from toolchain.evaluation.statistics import (
    bootstrap_mean_ci95,
    mcnemar,
    metric_ci95,
    metric_drop,
    normal_quantile,
    paired_drop,
)


def rows(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return references, and predictions of which `share` are right."""
    references = np.arange(count) % 2
    return references, np.where(np.arange(count) < share * count, references, 1 - references)


def test_interval_of_accuracy_is_wilson_s() -> None:
    """By the formula of Brown, Cai and DasGupta, Statistical Science 16 (2001)."""
    z = normal_quantile(0.975)
    for n, share in ((400, 0.9), (200, 1.0), (50, 0.0), (1, 1.0)):
        middle, off = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        expected = np.clip((middle + np.array([-off, off])) / (1 + z**2 / n), 0, 1)
        assert metric_ci95("accuracy", *rows(n, share), seed=0) == pytest.approx(tuple(expected))


def test_all_rows_right_still_leave_doubt() -> None:
    references = np.arange(200) % 2
    assert metric_ci95("accuracy", references, references, seed=0) == pytest.approx((0.98115, 1.0), abs=1e-4)
    for name in OF_TABLES:
        low, high = metric_ci95(name, references, references, seed=0)
        assert (0.95 < low < 0.99, high) == (True, 1.0)


def test_interval_of_pearson_is_near_fisher_s() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=500)
    y = x + generator.normal(size=500)
    expected = scipy.stats.pearsonr(x, y).confidence_interval(0.95)
    assert metric_ci95("pearson", x, y, seed=0) == pytest.approx(tuple(expected), abs=0.02)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("count", [2, 5, 9])
def test_few_rows_say_nothing_of_a_correlation(name: str, count: int) -> None:
    """Of few rows on a line, every resample is on that line too, which is no proof."""
    x = np.arange(count) + 0.5
    assert metric_ci95(name, x, 2 * x, seed=0) == (-1, 1)
    assert metric_drop(name, x, 2 * x, x, confidence=0.95, seed=0) == (-np.inf, np.inf)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_perfect_correlation_leaves_doubt_as_fisher_has_it(name: str) -> None:
    x = np.arange(12) + 0.5
    swapped = x.copy()
    swapped[[3, 4]] = x[[4, 3]]
    nearest = scipy.stats.pearsonr(x, swapped)  # ranks in which two neighbours have changed their places
    expected = nearest.confidence_interval(0.95).low
    for sign, interval in ((1, (expected, 1)), (-1, (-1, -expected))):
        assert metric_ci95(name, x, sign * x, seed=0) == pytest.approx(interval)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_constant_numbers_say_nothing(name: str) -> None:
    x, constant = np.arange(50) + 0.5, np.full(50, 2.0)
    assert metric_ci95(name, x, constant, seed=0) == (-1, 1)
    assert metric_drop(name, x, constant, constant, confidence=0.95, seed=0) == (-np.inf, np.inf)


@pytest.mark.parametrize("name", OF_TABLES)
def test_interval_of_a_metric_of_classes_is_near_the_bootstrap_s(name: str) -> None:
    generator = np.random.default_rng(1)
    references = (generator.random(2000) < 0.3).astype(np.int64)
    predictions = np.where(generator.random(2000) < 0.85, references, 1 - references)
    chosen = generator.integers(0, 2000, (200, 2000))
    expected = np.quantile([METRICS[name](references[at], predictions[at]) for at in chosen], [0.025, 0.975])
    assert metric_ci95(name, references, predictions, seed=0) == pytest.approx(tuple(expected), abs=0.008)


@pytest.mark.parametrize("name", OF_TABLES)
def test_metrics_of_weighted_tables_are_scikit_learn_s(name: str) -> None:
    generator = np.random.default_rng(2)
    for classes in (2,) if name == "f1" else (2, 5):
        tables = generator.random((3, classes, classes))
        rows, columns = (index.ravel() for index in np.indices((classes, classes)))
        of = sklearn.metrics.f1_score if name == "f1" else sklearn.metrics.matthews_corrcoef
        expected = [of(rows, columns, sample_weight=table.ravel()) for table in tables]
        assert OF_TABLES[name](tables) == pytest.approx(expected)


def test_it_covers_the_truth_about_19_times_in_20() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for seed in range(60):
        predictions = (generator.random(200) < 0.8).astype(np.int64)
        low, high = metric_ci95("accuracy", np.ones(200, np.int64), predictions, seed=seed)
        covered += low <= 0.8 <= high
    assert covered >= scipy.stats.binom(60, 0.95).ppf(0.001)


def shaped(name: str, references: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both in the form that a metric takes: lists of one label, or two queries."""
    if name in LABEL_SETS:
        return references[:, None] > 0, predictions[:, None] > 0
    if name == "entity_f1":
        return (references + 1)[:, None], (predictions + 1)[:, None]  # an entity begins, or goes on from nothing
    if name in OF_QUERIES:
        return np.stack([references, np.arange(len(references)) % 2], axis=1), predictions
    return references, predictions


@pytest.mark.parametrize("name", METRICS)
def test_interval_is_finite_and_in_order_even_for_few_rows(name: str) -> None:
    both = np.array([[0, 1, 1, 0, 1], [0, 1, 0, 0, 1]])  # many resamples are constant
    references, predictions = shaped(name, *both)
    low, high = metric_ci95(name, references, predictions, seed=0)
    assert -1 <= low <= METRICS[name](references, predictions) <= high <= 1


@pytest.mark.parametrize("name", ["f1", "pearson"])
def test_the_same_seed_gives_the_same_interval_and_another_seed_another(name: str) -> None:
    one, again, other = (metric_ci95(name, *rows(101, 0.7), seed=seed) for seed in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize("name", METRICS)
def test_one_row_says_little(name: str) -> None:
    both = rows(1, 1.0)
    low, high = metric_ci95(name, *shaped(name, *both), seed=0)
    assert high - low > 0.5


@pytest.mark.parametrize("name", ["pearson", "matthews_correlation"])
def test_memory_does_not_grow_with_resamples_times_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.evaluation.statistics.DRAWS_AT_ONCE", 100_000)
    references, predictions = rows(2_000, 0.9)
    tracemalloc.start()
    metric_ci95(name, references, predictions, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # 1000 resamples of 2000 int64 at once are 16 MB


def likelihood_score(drop: float, lost: int, gained: int, n: int) -> float:
    """Return the score statistic with the constrained maximum found by brute force instead of in closed form."""

    def unlikely(share_gained: float) -> float:
        shares = np.array([share_gained + drop, share_gained, 1 - 2 * share_gained - drop])
        return -float(scipy.special.xlogy([lost, gained, n - lost - gained], np.maximum(shares, 1e-300)).sum())

    low, high = max(0.0, -drop), (1 - drop) / 2
    best = scipy.optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (lost - gained - n * drop) / np.sqrt(n * (2 * best + drop * (1 - drop)))


@pytest.mark.parametrize(("lost", "gained", "n"), [(1, 7, 21), (3, 1, 100), (20, 14, 872), (5, 5, 60), (0, 4, 50)])
def test_bounds_of_a_paired_drop_solve_the_score_equation(lost: int, gained: int, n: int) -> None:
    z = normal_quantile(0.95)
    low, high = paired_drop(lost, gained, n, confidence=0.95)
    assert low < (lost - gained) / n < high
    assert likelihood_score(low, lost, gained, n) == pytest.approx(z, abs=2e-3)
    assert likelihood_score(high, lost, gained, n) == pytest.approx(-z, abs=2e-3)


def test_bounds_of_a_paired_drop_are_the_published_ones() -> None:
    """Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014): 1 and 7 of 21, Tango -0.517 to -0.026."""
    assert paired_drop(1, 7, 21, confidence=0.975) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_no_flips_at_all_still_leave_doubt() -> None:
    z = normal_quantile(0.95)
    low, high = paired_drop(0, 0, 872, confidence=0.95)
    assert high == pytest.approx(z**2 / (872 + z**2))
    assert low == pytest.approx(-high)


@pytest.mark.parametrize(("lost", "gained"), [(5, 0), (0, 5), (0, 0), (3, 2)])
def test_bounds_stay_within_a_hundred_percent(lost: int, gained: int) -> None:
    low, high = paired_drop(lost, gained, 5, confidence=0.99)
    assert -1 <= low <= (lost - gained) / 5 <= high <= 1


def test_bounds_of_a_paired_drop_cover_the_truth() -> None:
    generator = np.random.default_rng(3)
    counts = generator.multinomial(872, [0.03, 0.02, 0.95], size=400)
    above = [paired_drop(int(lost), int(gained), 872, confidence=0.95)[1] >= 0.01 for lost, gained, _ in counts]
    assert scipy.stats.binom(400, 0.95).ppf(0.001) <= sum(above) <= scipy.stats.binom(400, 0.95).ppf(0.999)


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 7, 0.0703125), (0, 6, 0.03125), (20, 14, 0.391528305), (121, 59, 4.43444926e-6)],
)
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int, p: float) -> None:
    """The figures are those of statsmodels.stats.contingency_tables.mcnemar(exact=True)."""
    assert mcnemar(lost, gained) == pytest.approx(p, rel=1e-6)


def changed(rows: np.ndarray, *at: int) -> np.ndarray:
    found = rows.copy()
    found[list(at)] = 1 - found[list(at)]
    return found


@pytest.mark.parametrize("name", OF_TABLES)
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_bound_with_a_few_changed_labels_is_not_tighter_than_with_none(name: str, share: float) -> None:
    """Rows 0 to 9 are right before and wrong after, rows 400 to 409 the other way round."""
    references = (np.random.default_rng(0).random(800) < share).astype(np.int64)
    baseline = changed(references, *range(400, 460))
    none = metric_drop(name, references, baseline, baseline, confidence=0.95, seed=0)
    assert none[0] < 0 < none[1]
    before = none
    for count in range(1, 6):
        bounds = [
            metric_drop(name, references, baseline, changed(baseline, *lost, *gained), confidence=0.95, seed=0)
            for lost, gained in ((range(count), ()), (range(count), range(400, 400 + count)))
        ]
        assert all(high > none[1] for _, high in bounds)
        assert bounds[1][1] - bounds[1][0] > 0.99 * (before[1] - before[0])  # the draws differ
        before = bounds[1]


@pytest.mark.parametrize("name", OF_TABLES)
@pytest.mark.parametrize("shares", [(0.02, 0.02), (0.003, 0.001)])
def test_bounds_of_a_drop_cover_the_truth(name: str, shares: tuple[float, float]) -> None:
    """The truth is that of a sample of a million rows."""
    generator = np.random.default_rng(6)

    def sample(n: int) -> list[np.ndarray]:
        references = (generator.random(n) < 0.4).astype(np.int64)
        wrong = generator.random(n) < 0.1
        flip = generator.random(n) < np.where(wrong, shares[1] * 9, shares[0])
        return [
            references,
            np.where(wrong, 1 - references, references),
            np.where(wrong ^ flip, 1 - references, references),
        ]

    references, *both = sample(1_000_000)
    drop = np.subtract(*(METRICS[name](references, one) for one in both))
    bounds = [metric_drop(name, *sample(800), confidence=0.95, seed=0) for _ in range(60)]
    for covered in (sum(high >= drop for _, high in bounds), sum(low <= drop for low, _ in bounds)):
        assert covered >= scipy.stats.binom(60, 0.95).ppf(0.001)


def test_bounds_of_more_than_two_classes_count_rows_that_could_change() -> None:
    references = np.arange(1000) % 5
    low, high = metric_drop("matthews_correlation", references, references, references, confidence=0.95, seed=0)
    # One row of prior is lost and one gained; a difference of two exponentials is Laplace's. A row costs 1 / 0.8 rows.
    assert high == pytest.approx(scipy.stats.laplace.ppf(0.95) / 1000 / 0.8, rel=0.05)
    assert low == pytest.approx(-high, rel=0.05)


def test_a_drop_is_surer_than_the_two_intervals_apart() -> None:
    """What is hard for both cancels: pairing is the point."""
    generator = np.random.default_rng(5)
    truth = generator.normal(size=300)
    one = truth + generator.normal(size=300)
    other = one + 0.05 * generator.normal(size=300)
    low, high = metric_drop("pearson", truth, one, other, confidence=0.975, seed=0)
    alone = metric_ci95("pearson", truth, one, seed=0)
    assert high - low < (alone[1] - alone[0]) / 5


def test_one_row_tells_nothing_of_a_drop() -> None:
    one = np.array([1.0])
    assert metric_drop("pearson", one, one, one, confidence=0.9, seed=0) == (-np.inf, np.inf)
    low, high = metric_drop("f1", np.array([1]), np.array([1]), np.array([1]), confidence=0.9, seed=0)
    assert low < -0.2 < 0.2 < high


@pytest.mark.parametrize(("count", "least"), [(5, 0.89), (10, 0.93), (30, 0.93)])
@pytest.mark.slow
def test_interval_of_a_mean_covers_the_truth_even_of_few_values(count: int, least: float) -> None:
    generator = np.random.default_rng(count)
    intervals = (bootstrap_mean_ci95(generator.normal(3, 1, count), seed=seed) for seed in range(400))
    covered = sum(low <= 3 <= high for low, high in intervals)
    assert scipy.stats.binom(400, least).ppf(0.001) <= covered <= scipy.stats.binom(400, 0.97).ppf(0.999)


@pytest.mark.parametrize(("count", "off"), [(5, 0.12), (10, 0.04), (30, 0.03)])
def test_interval_of_a_mean_is_as_wide_as_student_s(count: int, off: float) -> None:
    """The plain percentile interval is narrower by 0.37, 0.17 and 0.07."""
    values = scipy.stats.norm.ppf((np.arange(count) + 0.5) / count)
    low, high = scipy.stats.t.interval(0.95, count - 1, 0.0, scipy.stats.sem(values))
    assert bootstrap_mean_ci95(values, seed=0) == pytest.approx((low, high), rel=off)
