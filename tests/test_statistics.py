import tracemalloc

import numpy as np
import pytest
import scipy.stats

from toolchain.metrics import METRICS, accuracy, pearson
from toolchain.statistics import bootstrap_ci95


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
