"""A head is found by the task and by the model's outputs, and refuses the other's."""

import numpy as np
import pytest

from tests.head_of import head_of
from toolchain.data.tasks import FOLDER, load_task
from toolchain.errors import InputError
from toolchain.heads import find_head
from toolchain.heads.classes import Classes
from toolchain.heads.number import Number
from toolchain.recipe import Recipe

SHIPPED = sorted(path.stem for path in FOLDER.glob("*.toml"))


def test_only_stsb_is_a_regression():
    tasks = {name: load_task(Recipe(task=name)) for name in SHIPPED}
    outputs = {name: task.labels or (("value",) if name == "stsb" else ("no", "yes")) for name, task in tasks.items()}
    heads = {name: find_head(task, outputs[name]) for name, task in tasks.items()}
    assert [name for name, head in heads.items() if isinstance(head, Number)] == ["stsb"]
    assert all(heads[name].task == tasks[name] for name in SHIPPED)  # nothing is left to the head


@pytest.mark.parametrize(
    ("labels", "kind", "metrics"), [(("a", "b"), Classes, ("accuracy",)), (("a",), Number, ("pearson", "spearman"))]
)
def test_a_task_without_metrics_gets_those_of_the_models_head(labels, kind, metrics):
    head = head_of(*labels)
    assert isinstance(head, kind)
    assert (head.task.metrics, head.task.primary) == (metrics, metrics[0])


@pytest.mark.parametrize(
    ("metrics", "primary", "chosen"),
    [(("f1", "accuracy"), "", "accuracy"), (("f1",), "", "f1"), (("accuracy", "f1"), "f1", "f1")],
)
def test_the_main_metric_is_the_one_that_is_named_or_accuracy_or_the_first(metrics, primary, chosen):
    assert head_of("a", "b", metrics=metrics, primary=primary).task.primary == chosen


@pytest.mark.parametrize(
    ("labels", "primary", "message"),
    [
        (("a",), "accuracy", "--task t: the task has classes, but the model's only output is a. Choose the task"),
        (
            ("a", "b"),
            "pearson",
            "--task t: the task is a regression, but the model has the outputs a, b. Choose the task",
        ),
        (("a", "a"), "accuracy", "the label 'a' occurs twice in a, a."),
    ],
)
def test_outputs_that_do_not_fit_the_task_are_refused(labels, primary, message):
    with pytest.raises(InputError) as error:
        head_of(*labels, metrics=(primary,), primary=primary)
    assert str(error.value).startswith(message)


def test_a_metric_of_another_head_is_refused():
    with pytest.raises(InputError, match=r"^--task t: the metric pearson does not fit a single-label classifier"):
        head_of("a", "b", metrics=("accuracy", "pearson"), primary="accuracy")


def test_best_labels_come_first_and_a_number_has_none():
    logits = np.array([[0.0, 3.0, 1.0]], np.float32)
    (row,) = head_of("a", "b", "c").best(logits, 2)
    assert [one["label"] for one in row] == ["b", "c"]
    assert row[0]["score"] == pytest.approx(np.exp(3) / np.exp(logits).sum())
    assert head_of("a").best(logits[:, 1:2], None) == [[{"label": None, "score": 3.0}]]
