"""Which of the model's outputs a label in the data means."""

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
    """Turn the labels of rows into the model's: int64 [n] of output indices, float64 [n] if regression.

    A number in the data is an index into the task's labels, unless these are numbers themselves; a
    name is a name. Names are matched with the model's `id2label` whatever their case and
    punctuation. Where the model has only generic names (`LABEL_0`) the index is taken as it
    stands, with a warning.

    Raises:
        InputError: the head has another size than the task, names do not match, or a row has a
            label that is none.
    """
    if task.regression:
        return _numbers(rows, model_labels)
    if len(model_labels) == 1:
        raise InputError(f"--task {task.name}: has classes, the model gives one number. Choose another task.")
    mapping = _mapping(task, model_labels)
    if not task.labels and not _generic(model_labels) and any(_key(label).isdecimal() for label in rows.labels):
        log.warning(
            "%s: numbers are taken as positions of the model's labels: %s",
            rows.source,
            ", ".join(f"{index} is {name}" for index, name in enumerate(model_labels)),
        )
    indices = [mapping.get(_key(label), -1) for label in rows.labels]
    if -1 in indices:
        row = indices.index(-1)
        raise InputError(
            f"{rows.source}: row {row + 1} has the label {rows.labels[row]!r}, which the model does not "
            f"know. Its labels: {', '.join(model_labels)}."
        )
    return np.array(indices, np.int64)


def in_task_order(
    references: NDArray[Any], logits: NDArray[np.float32], task: Task, model_labels: list[str]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return references and logits with the classes in the task's order, which a metric such as F1 needs.

    A model may list the same labels in another order: its class 1 is then not the task's.
    """
    if task.regression or not task.labels:
        return references, logits
    order = list(_order(task, model_labels).values())
    return np.argsort(order)[references], logits[:, order]


def _numbers(rows: Rows, model_labels: list[str]) -> NDArray[np.float64]:
    if len(model_labels) != 1:
        raise InputError(
            f"{rows.source}: the task is regression, the model has {len(model_labels)} classes. "
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
    """Return folded label in the data -> index of the model's output."""
    by_name = _by_name(model_labels)
    if _generic(model_labels):
        log.warning(
            "the model names its labels only %s: they are taken by index%s",
            ", ".join(model_labels),
            f", as {', '.join(task.labels)}" if task.labels else "",
        )
    if not task.labels:
        return _with_positions(by_name)
    return _with_positions(_order(task, model_labels))


def check_labels(task: Task, model_labels: list[str]) -> None:
    """Refuse a model whose head does not fit a task that states its labels.

    Raises:
        InputError: one is a regression and the other not, or the labels' number or names differ.
    """
    if task.regression != (len(model_labels) == 1):
        kind = "regression" if task.regression else "classes"
        raise InputError(
            f"--task {task.name}: {kind}, and the model gives {', '.join(model_labels)}. "
            "Choose the task that the model was trained for."
        )
    if task.labels:
        _order(task, model_labels)


def _by_name(model_labels: list[str]) -> dict[str, int]:
    by_name = {_key(name): index for index, name in enumerate(model_labels)}
    if len(by_name) < len(model_labels):
        raise InputError(
            f"the model's labels {', '.join(model_labels)} differ only in case or punctuation. "
            "Give them distinct names in id2label of its config.json."
        )
    return by_name


def _generic(model_labels: list[str]) -> bool:
    return all(re.fullmatch(r"label_?\d+", name, re.IGNORECASE) for name in model_labels)


def _with_positions(named: dict[str, int]) -> dict[str, int]:
    """Add the positions as further names, unless names are numbers themselves."""
    if any(re.fullmatch(r"-?\d+", name) for name in named):
        return named
    return named | {str(position): index for position, index in enumerate(named.values())}


def _order(task: Task, model_labels: list[str]) -> dict[str, int]:
    """Return folded task label -> model output, in the task's order; by position for generic names."""
    if len(task.labels) != len(model_labels):
        raise InputError(
            f"--task {task.name}: has {len(task.labels)} labels, the model {len(model_labels)} "
            f"({', '.join(model_labels)}). Choose the task that the model was trained for."
        )
    keys = [_key(name) for name in task.labels]
    if _generic(model_labels):
        return {key: position for position, key in enumerate(keys)}
    by_name = _by_name(model_labels)
    if any(key not in by_name for key in keys):
        raise InputError(
            f"--task {task.name}: its labels {', '.join(task.labels)} are not the model's "
            f"{', '.join(model_labels)}. Name them alike in id2label, or in a copy of the task's "
            "TOML in eval/."
        )
    return {key: by_name[key] for key in keys}


def _key(label: Any) -> str:
    """Fold case and punctuation of a name, and 1.0 to 1; a number keeps its sign."""
    text = str(label).strip().lower()
    try:
        number = float(text)
    except ValueError:
        return re.sub(r"[\W_]+", "", text) or text
    return str(int(number)) if number.is_integer() else text
