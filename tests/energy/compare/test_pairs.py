"""Ratios by block: against NumPy and SciPy, by simulation, and under changes of units and order."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from toolchain.energy.compare.pairs import pair

NOISE = 0.03
ROOT2 = math.sqrt(2)


def series(joules, *, per_s=100.0, watts=60.0):
    """Return windows of one second."""
    return [{"per_inference_j": value, "inferences": per_s, "seconds": 1.0, "mean_power_w": watts} for value in joules]


def simulated(generator, blocks, difference):
    """Return two contenders with independent noise in each window and a common drift of the blocks."""
    drift = np.linspace(1, 1.2, blocks)
    noisy = drift * (1 + NOISE * generator.standard_normal((2, blocks)))
    return series(0.02 * noisy[0]), series(0.02 * (1 + difference) * noisy[1])


@pytest.mark.parametrize("difference", [0.1, -0.1])
def test_ten_percent_at_three_percent_noise_is_resolved(difference):
    found = [pair(*simulated(np.random.default_rng(seed), 10, difference), seed=seed) for seed in range(100)]
    assert sum(one["verdict"] == "resolved" for one in found) >= 95
    assert np.mean([one["ratio"] for one in found]) == pytest.approx(1 + difference, rel=0.005)


def test_no_difference_is_not_resolved():
    found = [pair(*simulated(np.random.default_rng(seed), 10, 0.0), seed=seed)["verdict"] for seed in range(100)]
    assert found.count("not resolved") >= 95


@pytest.mark.parametrize("blocks", [8, 10, 20])
@pytest.mark.slow
def test_the_interval_covers_the_truth_about_19_times_in_20(blocks):
    generator, covered = np.random.default_rng(blocks), 0
    for seed in range(400):
        low, high = pair(*simulated(generator, blocks, 0.05), seed=seed)["ratio_ci95"]
        covered += low <= 1.05 <= high
    assert covered >= scipy.stats.binom(400, 0.93).ppf(0.001)
    assert covered <= scipy.stats.binom(400, 0.97).ppf(0.999)


@pytest.mark.parametrize("blocks", [5, 8, 10, 20])
def test_the_mdd_is_detected_with_a_probability_of_0_8(blocks):
    logs = np.random.default_rng(blocks).normal(0.1, 0.05, blocks)
    found = pair(series(np.ones(blocks)), series(np.exp(logs)), seed=0)
    effect = math.log1p(found["mdd_percent"] / 100) / logs.std(ddof=1)
    critical = scipy.stats.t.ppf(0.975, blocks - 1)
    power = scipy.stats.nct.sf(critical, blocks - 1, effect * math.sqrt(blocks))
    assert power == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("blocks", "times"), [(5, 1.66), (8, 1.15), (10, 0.99), (20, 0.66)])
def test_the_mdd_is_the_published_multiple_of_the_deviation(blocks, times):
    logs = np.resize([0.2, 0.1], blocks)
    found = pair(series(np.ones(blocks)), series(np.exp(logs)), seed=0)
    assert math.log1p(found["mdd_percent"] / 100) == pytest.approx(times * logs.std(ddof=1), rel=0.005)


def test_the_ratio_is_the_geometric_mean_over_blocks():
    one, other = np.random.default_rng(1).uniform(1, 2, (2, 7))
    found = pair(series(one, per_s=100, watts=50), series(other, per_s=150, watts=60), seed=0)
    assert found["ratio"] == pytest.approx(scipy.stats.gmean(other / one))
    assert found["difference_percent"] == pytest.approx(100 * (scipy.stats.gmean(other / one) - 1))
    assert (found["throughput_ratio"], found["mean_power_ratio"]) == (pytest.approx(1.5), pytest.approx(1.2))


def test_a_difference_below_the_mdd_is_not_resolved_though_the_interval_excludes_1():
    logs = 0.021 + 0.0236 * ROOT2 * np.tile([1.0, -1.0], 5)  # deviation 0.0352: MDD 0.035, interval about 0.025
    found = pair(series(np.ones(10)), series(np.exp(logs + 0.007)), seed=0)
    assert found["ratio_ci95"][0] > 1
    assert (found["verdict"], found["reason"]) == ("not resolved", "below_mdd")
    assert abs(found["difference_percent"]) < found["mdd_percent"]


@pytest.mark.parametrize(("blocks", "has_mdd"), [(1, False), (2, True), (4, True)])
def test_few_blocks_resolve_nothing(blocks, has_mdd):
    found = pair(series(np.ones(blocks)), series(2 + 0.001 * np.arange(blocks)), seed=0)
    assert (found["verdict"], found["reason"], found["ratio_ci95"]) == ("not resolved", "too_few_blocks", None)
    assert found["ratio"] == pytest.approx(2, rel=0.01)
    assert (found["mdd_percent"] is not None) is has_mdd


def test_blocks_in_which_either_was_dropped_are_left_out():
    one, other = series([1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0]), series([2.0, 9.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    one[2] = other[1] = {"per_inference_j": None}
    found = pair(one, other, seed=0)
    assert (found["blocks"], found["dropped"], found["verdict"]) == (5, 2, "resolved")
    assert found["ratio"] == pytest.approx(2)


def test_without_a_common_block_there_is_no_number():
    dropped = {"per_inference_j": None}
    found = pair([dropped, *series([1.0])], [*series([1.0]), dropped], seed=0)
    known = {"verdict": "not resolved", "reason": "no_block", "blocks": 0, "dropped": 2}
    assert found == dict.fromkeys(found) | known


def test_equal_contenders_are_not_resolved_and_constant_ones_that_differ_are():
    assert pair(series([1.0] * 6), series([1.0] * 6), seed=0)["reason"] == "interval_holds_1"
    assert pair(series([1.0] * 6), series([1.1] * 6), seed=0)["verdict"] == "resolved"


JOULES = st.lists(st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)), min_size=5, max_size=12)


@given(JOULES, st.floats(1e-6, 1e6))
def test_units_do_not_matter(joules, scale):
    one, other = np.array(joules).T
    found, scaled = (pair(series(one * k), series(other * k), seed=0) for k in (1.0, scale))
    assert scaled["ratio"] == pytest.approx(found["ratio"], rel=1e-9)
    assert scaled["mdd_percent"] == pytest.approx(found["mdd_percent"], rel=1e-6, abs=1e-6)


@given(JOULES)
def test_swapping_contenders_inverts_ratio_and_interval(joules):
    one, other = map(series, np.array(joules).T)
    there, back = pair(one, other, seed=0), pair(other, one, seed=0)
    assert back["ratio"] == pytest.approx(1 / there["ratio"])
    low, high = there["ratio_ci95"]
    assert back["ratio_ci95"] == pytest.approx([1 / high, 1 / low])
