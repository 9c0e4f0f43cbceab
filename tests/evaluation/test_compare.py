"""Drops, flips and verdicts on tables that can be counted by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.data.metrics import METRICS
from toolchain.errors import InputError
from toolchain.evaluation.compare import FAILS, PASSES, UNKNOWN, compare
from toolchain.evaluation.statistics import paired_drop
from toolchain.heads.predictions import Predictions


def predictions(references, predicted):
    predicted = np.asarray(predicted)
    return Predictions(np.asarray(references), predicted, np.zeros((len(predicted), 2), np.float32))


def table(lost, gained, n, wrong=0):
    """Return two classifiers: so many rows lost, gained, wrong in both, and right in both."""
    references = np.zeros(n, np.int64)
    one, other = np.zeros((2, n), np.int64)
    other[:lost] = 1
    one[lost : lost + gained] = 1
    one[lost + gained : lost + gained + wrong] = other[lost + gained : lost + gained + wrong] = 1
    return predictions(references, one), predictions(references, other)


def test_accuracy_counts_flips_both_ways():
    found = compare(*table(20, 14, 872, wrong=90), "accuracy", max_drop=0.5)
    assert (found.flips.lost, found.flips.gained, found.flips.changed) == (20, 14, 34)
    assert found.drop_points == pytest.approx(100 * 6 / 872)
    assert found.baseline - found.candidate == pytest.approx(6 / 872)
    assert found.verdict == FAILS  # 0.69 points
    assert found.p_value == pytest.approx(0.3915, abs=1e-3)  # statsmodels' mcnemar([[0, 20], [14, 0]], exact=True)


@pytest.mark.parametrize(
    ("lost", "gained", "n", "limit", "verdict"),
    [
        (0, 0, 872, 0.5, PASSES),
        (5, 5, 872, 0.5, UNKNOWN),
        (50, 50, 100_000, 0.5, PASSES),
        (5, 1, 872, 0.4, FAILS),
        (10, 0, 872, 5, PASSES),
        (0, 0, 100, 0.5, UNKNOWN),
        (0, 40, 872, 0, PASSES),
        (1, 0, 200, 0.5, UNKNOWN),
    ],
)
def test_verdicts(lost, gained, n, limit, verdict):
    assert compare(*table(lost, gained, n), "accuracy", max_drop=limit).verdict == verdict


@pytest.mark.parametrize(("lost", "gained", "n"), [(9, 8, 872), (0, 0, 100), (2, 2, 300)])
def test_as_many_rows_as_it_says_would_tell(lost, gained, n):
    found = compare(*table(lost, gained, n), "accuracy", max_drop=0.5)
    assert found.verdict == UNKNOWN
    for share, passes in ((1.02, True), (0.95, False)):
        rows = found.rows_to_tell * share
        bounds = paired_drop(lost * rows / n, gained * rows / n, rows, confidence=0.95)
        assert (100 * bounds[1] <= 0.5) == passes


def test_the_detectable_drop_is_found_four_times_in_five():
    smallest = compare(*table(17, 17, 872), "accuracy").detectable_points / 100
    generator = np.random.default_rng(0)
    shares = [(34 / 872 + smallest) / 2, (34 / 872 - smallest) / 2]
    counts = generator.multinomial(872, [*shares, 1 - sum(shares)], size=300)
    seen = [compare(*table(int(lost), int(gained), 872), "accuracy").bounds_points[0] > 0 for lost, gained, _ in counts]
    assert 0.7 < np.mean(seen) < 0.9


@pytest.mark.parametrize("metric", ["f1", "matthews_correlation"])
def test_other_metrics_of_classes(metric):
    generator = np.random.default_rng(1)
    references = generator.integers(0, 2, 400)
    one = np.where(generator.random(400) < 0.9, references, 1 - references)
    other = np.where(generator.random(400) < 0.97, one, 1 - one)
    found = compare(predictions(references, one), predictions(references, other), metric, max_drop=30)
    assert found.drop_points == pytest.approx(
        100 * (METRICS[metric](references, one) - METRICS[metric](references, other))
    )
    assert found.bounds_points[0] < found.drop_points < found.bounds_points[1]
    assert (found.p_value, found.verdict) == (None, PASSES)


def test_a_regression_has_no_flips():
    generator = np.random.default_rng(2)
    references = generator.normal(size=500)
    one = references + generator.normal(size=500)
    found = compare(predictions(references, one), predictions(references, one + 0.01 * references), "pearson")
    assert found.flips is None
    assert found.verdict is None
    assert abs(found.drop_points) < 1


def test_equal_predictions_are_no_proof_for_few_rows():
    references = np.array([0, 1] * 20)
    found = compare(predictions(references, references), predictions(references, references), "f1", max_drop=0.5)
    assert found.verdict == UNKNOWN


def test_other_rows_are_refused():
    one, other = table(1, 1, 50)
    with pytest.raises(InputError, match="rows are not the same"):
        compare(one, predictions(1 - other.references, other.predicted), "accuracy")
    with pytest.raises(InputError, match="rows are not the same"):
        compare(one, table(1, 1, 51)[1], "accuracy")


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.floats(0, 5))
def test_a_pass_has_its_whole_interval_within_the_limit(lost, gained, right, limit):
    found = compare(*table(lost, gained, lost + gained + right + 1), "accuracy", max_drop=limit)
    low, high = found.bounds_points
    assert low <= found.drop_points <= high
    assert (found.verdict == PASSES) == (high <= limit + 1e-9)
    assert (found.rows_to_tell is not None) <= (found.verdict == UNKNOWN)
    json.dumps(found.to_json(), allow_nan=False)
