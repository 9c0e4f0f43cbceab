"""Heads: each defines what a model's outputs mean, how predictions are scored, and the form of the answers.

The contract is `contract.Head`. A head belongs to a task and to the names of a model's outputs. Other packages call its
methods and need not know which kind of model it is for. To add a head, write a file here and add its line to HEADS.
"""

import dataclasses
from collections.abc import Callable, Sequence

from toolchain.data.tasks import Task
from toolchain.errors import InputError, UsageError
from toolchain.heads.classes import Classes
from toolchain.heads.contract import Head
from toolchain.heads.embedding import Embedding
from toolchain.heads.multilabel import Multilabel
from toolchain.heads.number import Number
from toolchain.heads.rerank import Rerank
from toolchain.heads.tokens import Tokens


def _sequence(task: Task, labels: tuple[str, ...]) -> Head:
    """Return the head of a model that gives one number or one class for each row.

    The head is for a number if the task's main metric is for numbers or, in a task without metrics, if the model has
    one output.
    """
    number = task.primary in Number.metrics if task.primary else len(labels) == 1
    return Number(task, labels) if number else Classes(task, labels)


# Name in a task's TOML file -> function that returns the head for a task and the names of a model's outputs.
HEADS: dict[str, Callable[[Task, tuple[str, ...]], Head]] = {
    "sequence": _sequence,
    "multilabel": Multilabel,
    "embedding": Embedding,
    "rerank": Rerank,
    "tokens": Tokens,
}


def find_head(
    task: Task,
    labels: Sequence[str],
    *,
    possible: Sequence[str] = tuple(HEADS),
    threshold: float | None = None,
    width: int | None = None,
) -> Head:
    """Return the head for a task and a model. A task without metrics gets the default metrics of the head.

    Args:
        task: the task. If it names no head, the first of `possible` is taken.
        labels: the names of the model's outputs.
        possible: names of the heads that the checkpoint's configuration allows.
        threshold: the lowest score at which a row gets a label; None for the threshold of the task.
        width: length of the vectors of an embedding model, which has no labels; None for other models.

    Raises:
        InputError: the task names a head that is unknown or that the checkpoint rules out, the head cannot be scored by
            a metric of the task, or the model's outputs do not fit the task.
        UsageError: a threshold is given for a head without one, or is not between 0 and 1.
    """
    name = task.head or possible[0]
    _check_name(task, name, possible)
    task = task if threshold is None else dataclasses.replace(task, threshold=threshold)
    head = HEADS[name](task, tuple(labels))
    _check_options(task, head)
    metrics = task.metrics or head.defaults
    primary = task.primary or ("accuracy" if "accuracy" in metrics else metrics[0])
    if foreign := [metric for metric in metrics if metric not in head.metrics]:
        raise InputError(
            f"--task {task.name}: the metric {foreign[0]} does not fit {head.what}. "
            f"Choose from {', '.join(head.metrics)}, or give another task."
        )
    # A head with `join` reads rows that are lists of words. The task then names its head, so that a saved task reads
    # its rows in the same way.
    stated = name if head.join else task.head
    task = dataclasses.replace(head.task, metrics=metrics, primary=primary, head=stated)
    head = dataclasses.replace(head, task=task, width=width or 0)
    head.check()
    return head


def _check_name(task: Task, name: str, possible: Sequence[str]) -> None:
    if name not in HEADS:
        raise InputError(f"--task {task.name}: the head {name!r} is unknown. Choose one of {', '.join(HEADS)}.")
    if name not in possible:
        raise InputError(
            f"--task {task.name}: the task has the head {name}, but the checkpoint's config.json is for the "
            f"head {possible[0]}. Remove `head` from the task's TOML, or give another checkpoint."
        )


def _check_options(task: Task, head: Head) -> None:
    """Refuse a threshold, several label columns or a query column that the head does not use."""
    threshold, one_label = task.threshold, head.threshold is None
    if threshold is not None and (one_label or not 0 < threshold < 1):
        fault = "the value is not between 0 and 1. Give a number such as 0.3."
        why = f"{head.what} has no threshold. Leave the option out." if one_label else fault
        raise UsageError(f"--threshold {threshold:g}: {why}")
    if task.label_columns and one_label:
        raise InputError(
            f"--task {task.name}: it has several label columns, but the checkpoint is {head.what}. "
            "Name one label column."
        )
    if task.query_column and not isinstance(head, Rerank):
        raise InputError(
            f"--task {task.name}: query_column is for a reranker, and this is {head.what}. Remove query_column "
            'from the task, or add head = "rerank" to it.'
        )
