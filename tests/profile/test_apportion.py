"""Ablation recovers the true costs; groups that cannot be ablated share the rest by time."""

import contextlib
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from toolchain.profile.apportion import Variant, apportion, measure_variants

TRUE = {
    "tokenise": 0.5,
    "copy": 0.1,
    "embedding": 0.2,
    "attention": 3.0,
    "feed_forward": 5.0,
    "head": 0.3,
    "other": 0.9,
}
TIMES = {"tokenise": -1, "copy": -1, "embedding": 8, "attention": -1, "feed_forward": -1, "head": 16}
MS = dict.fromkeys(TRUE, 1.0)


class Machine:
    """Work with the costs in TRUE, times a drift that grows with each measurement, plus noise."""

    def __init__(self, *, drift=0.0, noise=0.0, times=None):
        self.drift, self.noise, self.random = drift, noise, np.random.default_rng(3)
        self.order, self.loaded = [], []
        self.variants = [Variant(group, count, self.opener(group, count)) for group, count in (times or TIMES).items()]
        self.whole = self.opener("", 0)

    def opener(self, group, count):
        @contextlib.contextmanager
        def opened():
            self.loaded.append(group)
            yield lambda: (group, sum(TRUE.values()) + TRUE.get(group, 0) * count)
            self.loaded.remove(group)

        return opened

    def measure(self, work):
        group, cost = work()
        assert self.loaded == [group], "two variants are loaded at once"
        factor = 1 + self.drift * len(self.order) + self.noise * self.random.standard_normal()
        self.order.append(group)
        return cost * factor, None

    def run(self, **choices):
        return measure_variants(self.whole, self.variants, self.measure, **choices)


def test_exact_measurements_give_the_true_costs_and_the_rest_is_the_remainder():
    found = apportion(MS, Machine().run())
    for group in TIMES:
        assert found.groups[group]["energy_j"] == pytest.approx(TRUE[group])
        assert found.groups[group]["method"] == "ablation"
        assert found.groups[group]["resolved"]
    assert found.groups["other"] == {
        "energy_j": None,
        "energy_ci95_j": None,
        "resolved": False,
        "method": "unavailable",
        "reason": "in_remainder",
    }
    assert found.remainder["energy_j"] == pytest.approx(TRUE["other"])
    assert found.whole["energy_j"] == pytest.approx(sum(TRUE.values()))


def test_each_variant_is_measured_once_a_round_in_random_order():
    machine = Machine()
    machine.run(rounds=6, seed=1)
    rounds = [machine.order[start : start + 7] for start in range(0, 42, 7)]
    assert all(sorted(one) == sorted(["", *TIMES]) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 6
    again = Machine()
    again.run(rounds=6, seed=1)
    assert again.order == machine.order


def test_the_interval_is_students_and_contains_the_truth_despite_drift_and_noise():
    found = Machine(drift=1e-4, noise=0.02).run(rounds=10)
    record = apportion(MS, found).groups["feed_forward"]
    values = found.groups["feed_forward"]
    low, high = stats.t.interval(0.95, 9, loc=fmean(values), scale=stats.sem(values))
    assert record["energy_ci95_j"] == pytest.approx([low, high])
    assert low < TRUE["feed_forward"] < high
    assert record["resolved"]
    assert not apportion(MS, found).groups["copy"]["resolved"]  # 0.1 of 10 J, with noise of 0.2 J


def test_groups_of_a_plan_share_the_rest_by_time():
    ms = {"tokenise": 2.0, "attention": 3.0, "feed_forward": 1.0, "other": 1.0}
    found = apportion(ms, Machine(times={"tokenise": -1}).run())
    left = sum(TRUE.values()) - TRUE["tokenise"]
    assert found.groups["tokenise"]["method"] == "ablation"
    assert [found.groups[group]["energy_j"] for group in ms if group != "tokenise"] == pytest.approx(
        [left * 0.6, left * 0.2, left * 0.2]
    )
    assert {found.groups[group]["method"] for group in ms if group != "tokenise"} == {"by_time"}
    assert found.remainder["reason"] == "by_time"
    assert found.remainder["energy_j"] is None


def test_without_a_meter_each_energy_is_null_with_a_reason():
    found = apportion(MS, None)
    assert {one["reason"] for one in (*found.groups.values(), found.remainder, found.whole)} == {"not_requested"}
    machine = Machine()
    calls = []

    def nothing(work):
        calls.append(work)
        return None, "no_nvml_library"

    found = apportion(MS, measure_variants(machine.whole, machine.variants, nothing))
    assert {one["reason"] for one in found.groups.values()} == {"no_nvml_library"}
    assert {one["energy_j"] for one in found.groups.values()} == {None}
    assert len(calls) == 1, "a meter that cannot measure is not asked again"


def test_a_failed_window_drops_only_its_own_differences():
    machine = Machine()
    count = iter(range(100))

    def measure(work):
        value, _ = machine.measure(work)
        lost = next(count) >= 7 and machine.order[-1] == "attention"
        return (None, "gpu_lost") if lost else (value, None)

    found = apportion(MS, measure_variants(machine.whole, machine.variants, measure))
    assert found.groups["attention"]["energy_j"] == pytest.approx(TRUE["attention"])  # the one round that has it
    assert found.groups["attention"]["energy_ci95_j"] is None
    assert found.groups["head"]["energy_ci95_j"] == pytest.approx([TRUE["head"]] * 2)
