"""Pareto fronts, against the definition without noise."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.conftest import RESULT
from toolchain.evaluation.results import save_predictions
from toolchain.heads.predictions import Predictions
from toolchain.sweep.fronts import Done, fronts, resolved_front

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.floats(0, 2)), min_size=1, max_size=12)


def plain_front(points):
    """The points that no other beats, by every pair."""
    return {
        at
        for at, (gain, cost, _) in enumerate(points)
        if not any(g >= gain and c <= cost and (g, c) != (gain, cost) for g, c, _ in points)
    }


@given(POINTS, st.booleans())
def test_a_front_contains_that_of_the_points_and_is_it_where_every_difference_is_resolved(points, noisy):
    gains = [float(gain) for gain, _, _ in points]
    costs = [(float(cost), cost - noise * noisy, cost + noise * noisy) for _, cost, noise in points]
    found = resolved_front(gains, costs, lambda better, other: not noisy)
    assert plain_front(points) <= set(found)
    if not noisy:
        assert plain_front(points) == set(found)


@given(POINTS)
def test_where_no_difference_is_resolved_every_point_is_on_the_front(points):
    costs = [(float(cost), -100.0, 100.0) for _, cost, _ in points]
    assert len(resolved_front([float(one[0]) for one in points], costs, lambda *_: False)) == len(points)


def done(name, accuracy, p50, joules=None, size=1.0, folder="."):
    result = copy.deepcopy(RESULT) | {"metrics": {"accuracy": accuracy}, "file": f"{folder}/{name}.json"}
    result["metrics_ci95"] = {"accuracy": [accuracy - 0.02, accuracy + 0.02]}
    result["latency_ms"]["p50"] = p50
    result["energy"] |= {"per_inference_j": joules, "ci95": joules and [joules - 0.1, joules + 0.1], "range": None}
    run = {"attempts": 1, "seconds": 1.0, "build_s": None, "exit_code": 0, "reason": None, "size_mb": size}
    return Done(name, result, run)


def test_a_cell_is_dominated_only_by_a_resolved_difference():
    cells = [done("fast", 0.90, 1.0), done("near", 0.90, 1.02), done("slow", 0.90, 3.0), done("best", 0.95, 3.0)]
    (front,) = fronts(cells, ["latency"])
    assert front["members"] == ["fast", "near", "best"]
    assert front["unresolved"] == ["near"]
    assert front["unmeasured"] == []


def test_costs_that_were_not_measured_are_named_and_more_throughput_is_better():
    cells = [done("one", 0.9, 1.0, joules=1.0, size=None), done("two", 0.9, 1.0)]
    cells[1].result["throughput_per_s"] = 9999.0
    energy, throughput, size = fronts(cells, ["energy", "throughput", "size"])
    assert (energy["members"], energy["unmeasured"]) == (["one"], ["two"])
    assert throughput["members"] == ["two"]
    assert (size["members"], size["unmeasured"]) == (["two"], ["one"])


@pytest.mark.parametrize(("wrong", "members"), [(1, ["better", "worse"]), (60, ["better"])])
def test_accuracies_of_the_same_rows_are_compared_row_by_row(tmp_path, wrong, members):
    """Their latencies are equal: `worse` leaves the front only if its accuracy is worse beyond chance."""
    labels = np.arange(200) % 2
    cells = []
    for name, count in (("better", 0), ("worse", wrong)):
        predicted = np.where(np.arange(200) < count, 1 - labels, labels)
        one = done(name, 1 - count / 200, 1.0, folder=str(tmp_path))
        kept = save_predictions(
            tmp_path / f"{name}.npz", Predictions(labels, predicted, np.zeros((200, 2), np.float32))
        )
        one.result["predictions"] = kept
        cells.append(one)
    (front,) = fronts(cells, ["latency"])
    assert sorted(front["members"]) == members


def test_tasks_have_fronts_of_their_own():
    other = done("other", 0.5, 9.0)
    other.result["task"] = "rte"
    assert [front["members"] for front in fronts([done("one", 0.9, 1.0), other], ["size"])] == [["one"], ["other"]]


def test_a_task_without_a_metric_has_no_front():
    one = done("a", 0.5, 1.0)
    assert fronts([Done(one.name, {**one.result, "primary": None, "metrics": {}}, one.run)], ["latency"]) == []


def test_energies_of_other_components_are_not_compared():
    cells = [
        done("gpu", 0.9, 1.0, joules=9.0),
        done("worse gpu", 0.8, 1.0, joules=20.0),
        done("cpu", 0.8, 1.0, joules=1.0),
    ]
    for cell in cells:
        its = ("gpu_board", "cpu_package") if "gpu" in cell.name else ("cpu_package",)
        for name in its:
            cell.result["energy"]["components"][name] |= {"joules": 1.0, "counted": True}
    gpu, cpu = fronts([*cells, done("none", 0.9, 1.0)], ["energy"])
    assert (gpu["members"], gpu["components"]) == (["gpu"], ["cpu_package", "gpu_board"])
    assert (cpu["members"], cpu["components"]) == (["cpu"], ["cpu_package"])
    assert gpu["unmeasured"] == cpu["unmeasured"] == ["none"]
