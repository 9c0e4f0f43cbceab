from typing import Any

import pytest

from toolchain.report.glue import TASKS, scores


def of(task: str, result: dict[str, Any], value: float) -> dict[str, Any]:
    return result | {"task": task, "metrics": {"accuracy": value}, "file": f"{task}.json"}


def test_the_score_is_the_mean_of_eight_tasks_once_all_nine_are_there(result: dict[str, Any]) -> None:
    results = [of(task, result, 0.9) for task in TASKS if task != "mrpc"]
    (found,) = scores(results)
    assert (found.mean, found.missing) == (None, ["mrpc"])
    assert found.reason == "8 of 9 tasks measured"
    results.append(of("mrpc", result, 0.8) | {"metrics": {"accuracy": 0.8, "f1": 0.9}})
    (found,) = scores(results)
    assert found.mean
    assert found.mean.value == pytest.approx((7 * 90 + 85) / 8)
    assert found.missing == []


def test_wnli_is_shown_and_does_not_count(result: dict[str, Any]) -> None:
    (low,), (high,) = (scores([of(task, result, x if task == "wnli" else 0.9) for task in TASKS]) for x in (0.1, 0.9))
    assert low.tasks["wnli"].value == pytest.approx(10)
    assert low.mean
    assert high.mean
    assert low.mean.value == high.mean.value == pytest.approx(90)
    assert low.to_json()["score"] == pytest.approx(90)


def test_two_results_for_a_task_give_no_score(result: dict[str, Any]) -> None:
    twice = [result, result | {"model": "other"}]
    (found,) = scores([*twice, result | {"task": "rte"}])
    assert found.mean is None
    assert found.reason == "several results for sst2: give one for each task"
    assert scores(twice) == []  # a study of one task


def test_other_tasks_and_rows_have_no_score(result: dict[str, Any]) -> None:
    assert scores([result | {"task": "demo"}, result | {"split": "train"}]) == []
