"""The match between the labels in the data and the outputs of the model."""

import logging
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.data.rows import Rows
from toolchain.data.tasks import Task
from toolchain.errors import InputError

log = logging.getLogger(__name__)


def read_labels(rows: Rows, task: Task, model_labels: list[str]) -> NDArray[Any]:
    """Return the labels of rows as indices of the model's outputs, int64 [n], or for a regression as float64 [n].

    A name in the data is matched with the model's `id2label`; case and punctuation do not matter. A number in the data
    is an index into the task's labels, unless the labels are numbers themselves. If the model has only generic names
    (`LABEL_0`), the position in the task's labels is the index, and a warning says so.

    Raises:
        InputError: the head and the task differ in size, the names do not match, or a row has an unknown label.
    """
    if task.regression:
        return _numbers(rows, model_labels)
    if len(model_labels) == 1:
        raise InputError(f"--task {task.name}: the task has classes, the model gives one number. Choose another task.")
    mapping = _mapping(task, model_labels)
    if not task.labels and not _generic(model_labels) and any(_key(label).isdecimal() for label in rows.labels):
        log.warning(
            "%s: the numbers are read as positions of the model's labels: %s",
            rows.source,
            ", ".join(f"{index} is {name}" for index, name in enumerate(model_labels)),
        )
    indices = [mapping.get(_key(label), -1) for label in rows.labels]
    if -1 in indices:
        row = indices.index(-1)
        raise InputError(
            f"{rows.source}: row {row + 1} has the label {rows.labels[row]!r}, which is not among the model's: "
            f"{', '.join(model_labels)}. Fix the row, or choose the task that the model was trained for."
        )
    return np.array(indices, np.int64)


def in_task_order(
    references: NDArray[Any], logits: NDArray[np.float32], task: Task, model_labels: list[str]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return references, int64 [n], and logits, float32 [n, classes], with the classes in the task's order.

    A model may list the same labels in another order. Its class 1 is then not the task's, which matters to F1. A
    regression, and a task that states no labels, is returned unchanged.
    """
    if task.regression or not task.labels:
        return references, logits
    order = list(_order(task, model_labels).values())
    return np.argsort(order)[references], logits[:, order]


def _numbers(rows: Rows, model_labels: list[str]) -> NDArray[np.float64]:
    if len(model_labels) != 1:
        raise InputError(
            f"{rows.source}: the task is a regression, and the model has {len(model_labels)} classes. "
            "Choose the task that it was trained for."
        )
    numbers = np.array([_number(label) for label in rows.labels], np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers)))
        raise InputError(f"{rows.source}: row {row + 1} has the label {rows.labels[row]!r}. Give a finite number.")
    return numbers


def _number(label: Any) -> float:
    try:
        return float(label)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _mapping(task: Task, model_labels: list[str]) -> dict[str, int]:
    """Return a dict from each label that the data may have, folded by `_key`, to the index of the model's output."""
    by_name = _by_name(model_labels)
    if _generic(model_labels):
        log.warning(
            "the model names its labels only %s: they are matched by index%s",
            ", ".join(model_labels),
            f", as {', '.join(task.labels)}" if task.labels else "",
        )
    if not task.labels:
        return _with_positions(by_name)
    return _with_positions(_order(task, model_labels))


def check_labels(task: Task, model_labels: list[str]) -> None:
    """Refuse a model whose head does not fit the task.

    Raises:
        InputError: only one of them is a regression, or the task states labels of another number or other names.
    """
    if task.regression != (len(model_labels) == 1):
        kind = "is a regression" if task.regression else "has classes"
        raise InputError(
            f"--task {task.name}: the task {kind}, and the model returns {', '.join(model_labels)}. "
            "Choose the task that the model was trained for."
        )
    if task.labels:
        _order(task, model_labels)


def _by_name(model_labels: list[str]) -> dict[str, int]:
    """Return a dict from each label of the model, folded by `_key`, to its index.

    Raises:
        InputError: two labels are the same when folded.
    """
    by_name = {_key(name): index for index, name in enumerate(model_labels)}
    if len(by_name) < len(model_labels):
        raise InputError(
            f"id2label of the model: the labels {', '.join(model_labels)} differ only in case or punctuation. "
            "Give them distinct names in its config.json."
        )
    return by_name


def _generic(model_labels: list[str]) -> bool:
    """Return whether every label is a default of transformers: LABEL_0, LABEL_1, ..."""
    return all(re.fullmatch(r"label_?\d+", name, re.IGNORECASE) for name in model_labels)


def _with_positions(named: dict[str, int]) -> dict[str, int]:
    """Return the names with their positions as further names, unless a name is a number itself."""
    if any(re.fullmatch(r"-?\d+", name) for name in named):
        return named
    return named | {str(position): index for position, index in enumerate(named.values())}


def _order(task: Task, model_labels: list[str]) -> dict[str, int]:
    """Return a dict from each task label, folded by `_key`, to the model's output, in the task's order.

    Generic names of the model are matched by position.

    Raises:
        InputError: the number of labels or their names differ.
    """
    if len(task.labels) != len(model_labels):
        raise InputError(
            f"--task {task.name}: the task has {len(task.labels)} labels, and the model has {len(model_labels)} "
            f"({', '.join(model_labels)}). Choose the task that the model was trained for."
        )
    keys = [_key(name) for name in task.labels]
    if _generic(model_labels):
        return {key: position for position, key in enumerate(keys)}
    by_name = _by_name(model_labels)
    if any(key not in by_name for key in keys):
        raise InputError(
            f"--task {task.name}: the task's labels {', '.join(task.labels)} are not the model's "
            f"{', '.join(model_labels)}. Use the same names in id2label, or in a copy of the task's "
            "TOML in eval/."
        )
    return {key: by_name[key] for key in keys}


def _key(label: Any) -> str:
    """Return a label without case and punctuation, and 1.0 as 1; a number keeps its sign."""
    text = str(label).strip().lower()
    try:
        number = float(text)
    except ValueError:
        return re.sub(r"[\W_]+", "", text) or text
    return str(int(number)) if number.is_integer() else text
