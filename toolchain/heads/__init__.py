"""Heads: what a model puts out, how rows are scored by it, and how an answer looks.

The contract is `contract.Head`. A head is bound to a task and to the names of a model's outputs; everything above asks
it, and no other module asks what kind of model it has. To add one: a file here and its line in HEADS.
"""

import dataclasses
from collections.abc import Callable, Sequence

from toolchain.data.tasks import Task
from toolchain.errors import InputError
from toolchain.heads.classes import Classes
from toolchain.heads.contract import Head
from toolchain.heads.number import Number


def _sequence(task: Task, labels: tuple[str, ...]) -> Head:
    """Return the head of one label a row: of a number if the task's metric says so, or the model has one output."""
    number = task.primary in Number.metrics if task.primary else len(labels) == 1
    return Number(task, labels) if number else Classes(task, labels)


# Name in a task's TOML -> function that binds the head to a task and the names of a model's outputs.
HEADS: dict[str, Callable[[Task, tuple[str, ...]], Head]] = {
    "sequence": _sequence,
}


def find_head(task: Task, labels: Sequence[str], *, name: str = "sequence") -> Head:
    """Return the head of this name for a task; a task without metrics gets those of the head.

    Raises:
        InputError: the head cannot be scored by a metric of the task, or the model's outputs do not fit the task.
    """
    head = HEADS[name](task, tuple(labels))
    metrics = task.metrics or head.defaults
    primary = task.primary or ("accuracy" if "accuracy" in metrics else metrics[0])
    if foreign := [metric for metric in metrics if metric not in head.metrics]:
        raise InputError(
            f"--task {task.name}: the metric {foreign[0]} does not fit {head.what}. "
            f"Choose from {', '.join(head.metrics)}, or another task."
        )
    head = dataclasses.replace(head, task=dataclasses.replace(task, metrics=metrics, primary=primary))
    head.check()
    return head
