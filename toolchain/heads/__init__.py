"""Heads: what a model puts out, how rows are scored by it, and how an answer looks.

The contract is `contract.Head`. A head is bound to a task and to the names of a model's outputs; everything above asks
it, and no other module asks what kind of model it has. To add one: a file here and its line in HEADS.
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
    """Return the head of one label a row: of a number if the task's metric says so, or the model has one output."""
    number = task.primary in Number.metrics if task.primary else len(labels) == 1
    return Number(task, labels) if number else Classes(task, labels)


# Name in a task's TOML -> function that binds the head to a task and the names of a model's outputs.
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
    """Return the head of a task; a task without metrics gets those of the head.

    Args:
        task: the task. If it names no head, the first of `possible` is taken.
        labels: the names of the model's outputs.
        possible: the heads that the checkpoint's configuration allows.
        threshold: another threshold than the task's, of a head that has one.
        width: numbers of a vector, of a model without labels.

    Raises:
        InputError: the task names a head that is unknown or that the checkpoint rules out, the head cannot be scored by
            a metric of the task, or the model's outputs do not fit the task.
        UsageError: a threshold is given to a head without one, or is not between 0 and 1.
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
            f"Choose from {', '.join(head.metrics)}, or another task."
        )
    # Rows of tags are read as lists of words, so the task says so wherever it is kept.
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
            f"--task {task.name}: the task says that the head is {name}, and the checkpoint's config.json that it is "
            f"{possible[0]}. Remove head from the task, or give another checkpoint."
        )


def _check_options(task: Task, head: Head) -> None:
    """Refuse what the task asks for and the head lacks."""
    threshold, one_label = task.threshold, head.threshold is None
    if threshold is not None and (one_label or not 0 < threshold < 1):
        why = f"{head.what} has none. Leave it out." if one_label else "not between 0 and 1. Give 0.3 or so."
        raise UsageError(f"--threshold {threshold:g}: {why}")
    if task.label_columns and one_label:
        raise InputError(
            f"--task {task.name}: it has several label columns, and this is {head.what}. Name one label column."
        )
    if task.query_column and not isinstance(head, Rerank):
        raise InputError(
            f"--task {task.name}: query_column is for a reranker, and this is {head.what}. Remove it, or add "
            'head = "rerank".'
        )
