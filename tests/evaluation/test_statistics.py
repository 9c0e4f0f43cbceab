import tracemalloc

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from toolchain.data.metrics import METRICS, accuracy, pearson
from toolchain.evaluation.statistics import (
    bootstrap_ci95,
    bootstrap_drop,
    bootstrap_mean_ci95,
    mcnemar,
    normal_quantile,
    paired_drop,
)


def rows(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return references, and predictions of which `share` are right."""
    references = np.arange(count) % 2
    return references, np.where(np.arange(count) < share * count, references, 1 - references)


def test_interval_of_accuracy_is_near_the_binomial_one() -> None:
    low, high = bootstrap_ci95(accuracy, *rows(400, 0.9), seed=0)
    expected = scipy.stats.binom(400, 0.9).interval(0.95)
    assert np.array([low, high]) * 400 == pytest.approx(expected, abs=4)


def test_interval_of_pearson_is_near_fisher_s() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=500)
    y = x + generator.normal(size=500)
    expected = scipy.stats.pearsonr(x, y).confidence_interval(0.95)
    assert bootstrap_ci95(pearson, x, y, seed=0) == pytest.approx(tuple(expected), abs=0.02)


def test_it_covers_the_truth_about_19_times_in_20() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for seed in range(60):
        predictions = (generator.random(200) < 0.8).astype(np.int64)
        low, high = bootstrap_ci95(accuracy, np.ones(200, np.int64), predictions, seed=seed)
        covered += low <= 0.8 <= high
    assert covered >= scipy.stats.binom(60, 0.95).ppf(0.001)


@pytest.mark.parametrize("name", METRICS)
def test_interval_is_finite_and_in_order_even_for_few_rows(name: str) -> None:
    references, predictions = np.array([[0, 1, 1, 0, 1], [0, 1, 0, 0, 1]])  # many resamples are constant
    low, high = bootstrap_ci95(METRICS[name], references, predictions, seed=0)
    assert -1 <= low <= METRICS[name](references, predictions) <= high <= 1


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    one, again, other = (bootstrap_ci95(accuracy, *rows(101, 0.7), seed=seed) for seed in (1, 1, 2))
    assert one == again != other


def test_one_row_gives_the_point() -> None:
    assert bootstrap_ci95(accuracy, *rows(1, 1.0), seed=0) == (1.0, 1.0)


def test_memory_does_not_grow_with_resamples_times_rows() -> None:
    references, predictions = rows(40_000, 0.9)
    tracemalloc.start()
    bootstrap_ci95(accuracy, references, predictions, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # 1000 resamples of 40 000 int64 at once are 320 MB


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


def test_bootstrap_of_a_drop_is_near_the_exact_bounds_for_accuracy() -> None:
    generator = np.random.default_rng(4)
    references = np.ones(800, np.int64)
    one, other = (generator.random((2, 800)) < np.array([[0.9], [0.86]])).astype(np.int64)
    lost, gained = int((one > other).sum()), int((other > one).sum())
    exact = paired_drop(lost, gained, 800, confidence=0.95)
    assert bootstrap_drop(accuracy, references, one, other, confidence=0.95, seed=0) == pytest.approx(exact, abs=0.004)


def test_a_drop_is_surer_than_the_two_intervals_apart() -> None:
    """What is hard for both cancels: pairing is the point."""
    generator = np.random.default_rng(5)
    truth = generator.normal(size=300)
    one = truth + generator.normal(size=300)
    other = one + 0.05 * generator.normal(size=300)
    low, high = bootstrap_drop(pearson, truth, one, other, confidence=0.975, seed=0)
    alone = bootstrap_ci95(pearson, truth, one, seed=0)
    assert high - low < (alone[1] - alone[0]) / 5


def test_one_row_tells_nothing_of_a_drop() -> None:
    one = np.array([1])
    assert bootstrap_drop(accuracy, one, one, one, confidence=0.9, seed=0) == (-np.inf, np.inf)


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
