from typing import Any

import pytest

from toolchain.report.glue import TASKS, scores


def test_the_score_is_the_mean_of_the_tasks_and_names_the_missing(result: dict[str, Any]) -> None:
    mrpc = result | {"task": "mrpc", "metrics": {"accuracy": 0.8, "f1": 0.9}, "file": "mrpc.json"}
    sst2 = result | {"metrics": {"accuracy": 0.95}}
    (found,) = scores([sst2, mrpc])
    assert found.mean
    assert found.mean.value == pytest.approx((95 + 85) / 2)
    assert found.missing == [task for task in TASKS if task not in ("sst2", "mrpc")]


def test_two_results_for_a_task_give_no_score(result: dict[str, Any]) -> None:
    (found,) = scores([result, result | {"model": "other"}])
    assert found.mean is None
    assert found.reason == "several results for sst2: give one for each task"


def test_other_tasks_and_rows_have_no_score(result: dict[str, Any]) -> None:
    assert scores([result | {"task": "demo"}, result | {"split": "train"}]) == []
