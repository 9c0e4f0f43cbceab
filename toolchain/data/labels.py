"""Maps the labels in the data to the indices of the model's outputs.

A name is compared as it is written. If no name of the model is equal, the comparison ignores case and treats spaces,
underscores and hyphens between letters alike. All other characters count: C, C++ and C# are three labels. A number is
an index from 0; the code never guesses that numbers start from 1.
"""

import decimal
import logging
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.data.metrics import TWO_CLASSES
from toolchain.data.rows import Rows
from toolchain.data.tasks import Task
from toolchain.errors import InputError

log = logging.getLogger(__name__)

# The types of labels that are names or numbers.
VALUES = (str, int, float, decimal.Decimal)

# Number of rows at the beginning of a split whose texts are tried as labels, to find swapped columns. Splits with fewer
# rows are too small to tell whether their texts repeat too often.
SWAP_ROWS = 50

# If the number of different texts is less than this fraction of the rows, the text column is probably a wrong column.
FEW_TEXTS = 0.1


def read_labels(rows: Rows, task: Task, model_labels: list[str]) -> NDArray[Any]:
    """Return the labels of rows as indices of the model's outputs, int64 [n].

    A number in the data is an index into the task's labels, unless the labels' names are numbers. If the model has only
    generic names (`LABEL_0`), a label's index in the task's labels is used, and a warning is logged.

    Raises:
        InputError: model and task differ in the number or the names of their labels, or a row has an unknown label.
    """
    names = _Names(task, model_labels, rows)
    found = {key: names.find(label) for key, label in _distinct(rows).items()}
    indices = [found[_key(label)] for label in rows.labels]
    if -1 in indices:
        row = indices.index(-1)
        swapped = all(names.find(text) >= 0 for (text, *_) in rows.texts[:SWAP_ROWS]) or _looks_swapped(rows)
        raise InputError(
            f"{rows.source}: row {rows.number(row)} has the label {rows.labels[row]!r}, which is not among the "
            f"model's labels: {', '.join(model_labels)}. {SWAPPED if swapped else names.advice(rows.labels[row])}"
        )
    return np.array(indices, np.int64)


SWAPPED = (
    "The text column contains labels: --text-column and --label-column are probably swapped. Exchange the two names."
)


class _Names:
    """The labels that rows may have, and the index of the model's output for each of them."""

    def __init__(self, task: Task, model_labels: list[str], rows: Rows) -> None:
        """Match the task's labels, if it states any, with the model's labels.

        Raises:
            InputError: the labels of task and model differ in number or name.
        """
        order = order_of(task, model_labels) if task.labels else list(range(len(model_labels)))
        self.finders = [_Finder(model_labels, range(len(model_labels)))]
        if task.labels:
            self.finders.insert(0, _Finder(task.labels, order))
        self.positions, self._numbered = order, False
        self._generic = _generic(model_labels)
        keys = _distinct(rows)
        numbers = {number for label in keys.values() if (number := _position(label)) is not None}
        named = any(re.fullmatch(r"-?[0-9]+", _fold(name)) for finder in self.finders for name in finder.names)
        if named:
            self.positions = []
        elif not task.labels and numbers:
            self._check_positions(rows, numbers, model_labels)
        if self._generic:
            log.warning(
                "the model's labels have only generic names (%s), so the labels in the data are matched by index%s",
                ", ".join(model_labels),
                f", in the order {', '.join(task.labels)}" if task.labels else "",
            )
        self.class_names: list[int] = []
        if rows.label_names and numbers and (task.labels or not self._generic):
            self._read_class_names(rows)
        elif not self._generic and not task.labels and numbers and self.positions:
            log.warning(
                "the labels in the data are numbers, and are read as indices of the model's labels: %s",
                ", ".join(f"{index} is {name}" for index, name in enumerate(model_labels)),
            )

    def find(self, label: Any) -> int:
        """Return the index of the model's output for a label of the data, or -1 if the label is unknown."""
        position = _position(label)
        if self.class_names and position is not None:
            return self.class_names[position] if 0 <= position < len(self.class_names) else -1
        if isinstance(label, VALUES):
            for finder in self.finders:
                if (index := finder.find(label)) >= 0:
                    return index
        return self.positions[position] if position is not None and 0 <= position < len(self.positions) else -1

    def advice(self, label: Any) -> str:
        """Return the advice at the end of the message about an unknown label."""
        position = _position(label)
        if position is not None and (self._numbered or 0 < position == len(self.positions)):
            return "Numbers are read as indices from 0. If they start from 1, write the names of the labels instead."
        if position is not None and position < 0:
            return "Data sets hide the labels of a test split with negative numbers. Choose a labelled --split."
        if self._generic:
            return "Write indices from 0, or name the model's labels with id2label in the model's config.json."
        if not isinstance(label, VALUES):
            return f"It is a {type(label).__name__}. Write the name of the label as text, or its index from 0."
        if isinstance(label, bool):
            return "It is a boolean. Write the names of the labels, or their indices 0 and 1."
        return "Fix the row, or choose the task that the model was trained for."

    def _check_positions(self, rows: Rows, numbers: set[int], model_labels: list[str]) -> None:
        """Stop reading numbers as indices if no row has the label 0 and the model's names contain digits.

        The numbers may then be those in the names, such as 1 in "1 star". For other names, a warning is logged.
        """
        if min(numbers) <= 0 or rows.label_names:  # a number below 0 is refused later
            return
        if not _generic(model_labels) and any(re.search(r"[0-9]", name) for name in model_labels):
            self.positions, self._numbered = [], True
        elif len(rows) > len(model_labels):
            log.warning(
                "%s: numbers are read as indices from 0, but no row has the label 0. If they start from 1, write the "
                "names of the labels instead.",
                rows.source,
            )

    def _read_class_names(self, rows: Rows) -> None:
        """Match the data's names of numbered classes with the labels. If no name is equal, match them by position.

        Raises:
            InputError: only some of the names match, or none does and the data and the labels differ in number.
        """
        finder = self.finders[0]
        found = [finder.find(name) for name in rows.label_names]
        if -1 not in found:
            self.class_names = found
            return
        if len(found) != len(finder.names) or max(found) >= 0:
            raise InputError(
                f"{rows.source}: the data's classes are {', '.join(rows.label_names)}, and the labels of the task or "
                f"the model are {', '.join(finder.names)}. Give them the same names."
            )
        self.class_names = list(finder.names.values())
        pairs = ", ".join(f"{one} is {other}" for one, other in zip(rows.label_names, finder.names, strict=True))
        log.warning("%s: no class name equals a label, so they are matched by position: %s", rows.source, pairs)


class _Finder:
    """Finds the index of a label by its name: first the exact name, then a name that `_fold` makes equal.

    Raises:
        InputError: on construction, if two names are equal.
    """

    def __init__(self, names: Sequence[str], indices: Sequence[int]) -> None:
        self.names = dict(zip(names, indices, strict=True))
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(
                f"the label {twice[0]!r} occurs twice in {', '.join(names)}. Give distinct names in id2label, or in "
                "labels of the task's TOML."
            )
        folded: dict[str, list[int]] = {}
        for name, index in self.names.items():
            folded.setdefault(_fold(name), []).append(index)
        # If two names have the same folded form, the form identifies neither of them.
        self._folded = {key: found[0] for key, found in folded.items() if len(found) == 1}

    def find(self, label: Any) -> int:
        """Return the index of a label, or -1 if no name matches."""
        text = str(label)
        for form in (text, text.strip()):
            if form in self.names:
                return self.names[form]
        return self._folded.get(_fold(text), -1)


def _distinct(rows: Rows) -> dict[tuple[type, str], Any]:
    """Return the distinct labels of the rows, each by its key."""
    return {_key(label): label for label in rows.labels}


def _key(label: Any) -> tuple[type, str]:
    """Return a dictionary key for a label of any type. A list is not hashable, and True would be the same key as 1."""
    return type(label), str(label)


def in_task_order(
    references: NDArray[Any], logits: NDArray[np.float32], task: Task, model_labels: list[str]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return references, int64 [n], and logits, float32 [n, classes], with the classes in the task's order.

    A model may list the same labels in another order. Its class 1 is then not the task's class 1, whose F1 is
    computed. If the task states no labels, both arrays are returned unchanged.
    """
    if not task.labels:
        return references, logits
    order = order_of(task, model_labels)
    return np.argsort(order)[references], logits[:, order]


def read_numbers(rows: Rows, model_labels: list[str]) -> NDArray[np.float64]:
    """Return the labels of rows as numbers, float64 [n], for a regression model, which has one output.

    Raises:
        InputError: the model has several outputs, or a label is not a finite number.
    """
    if len(model_labels) != 1:
        raise InputError(
            f"{rows.source}: the task is a regression, but the model has {len(model_labels)} classes. "
            "Choose the task that the model was trained for."
        )
    numbers = np.array([_number(label) for label in rows.labels], np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers)))
        swapped = all(math.isfinite(_number(text)) for (text, *_) in rows.texts[:SWAP_ROWS])
        raise InputError(
            f"{rows.source}: row {rows.number(row)} has the label {rows.labels[row]!r}, and the task needs a number. "
            f"{SWAPPED if swapped else 'Write a finite number, such as 3.5.'}"
        )
    return numbers


def _number(label: Any) -> float:
    if isinstance(label, bool) or (isinstance(label, str) and "_" in label):  # Python reads 1_000 as a number
        return math.nan
    try:
        return float(label)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _looks_swapped(rows: Rows) -> bool:
    """Return whether the columns are probably swapped: most labels are different, while few texts are."""
    count = len(rows)
    return count >= SWAP_ROWS and len(_distinct(rows)) > count / 2 and len(set(rows.texts)) < FEW_TEXTS * count


def check_texts(rows: Rows) -> None:
    """Log a warning if the text column probably does not contain the texts that the model should read."""
    count, different = len(rows), len(set(rows.texts))
    if count >= SWAP_ROWS and different < FEW_TEXTS * count:
        log.warning(
            "%s: there are only %d different texts in %d rows, such as %.60r. "
            "Check that --text-column names the right column.",
            rows.source,
            different,
            count,
            rows.texts[0][0],
        )
    for column in zip(*rows.texts, strict=True):
        if all(math.isfinite(_number(text)) for text in column):
            log.warning(
                "%s: every text is a number, such as %.60r. Check that --text-column names the right column.",
                rows.source,
                column[0],
            )
    if all(re.fullmatch(r"\s*(\[.*\]|\{.*\}|b'.*'|b\".*\")\s*", text, re.DOTALL) for text, *_ in rows.texts):
        log.warning(
            "%s: every text is written as a list, an object or bytes, such as %.60r. The model reads the brackets and "
            "quotes too. If that is not intended, write the texts alone.",
            rows.source,
            rows.texts[0][0],
        )


def check_labels(task: Task, model_labels: list[str]) -> None:
    """Refuse a model whose labels differ from the task's labels or do not suit its metrics.

    Raises:
        InputError: two labels of the model are equal, the task's labels differ from the model's in number or name, or
            a metric of the task needs two classes and the model has another number.
    """
    of_two = next((name for name in task.metrics if name in TWO_CLASSES), None)
    if of_two and len(model_labels) != 2:
        raise InputError(
            f"--task {task.name}: its metric {of_two} needs two classes, and the model has {len(model_labels)}. "
            "Write accuracy or matthews_correlation as the metric in the task's TOML."
        )
    _Finder(model_labels, range(len(model_labels)))
    if task.labels:
        order_of(task, model_labels)


def _generic(model_labels: list[str]) -> bool:
    """Return whether the labels are the defaults of transformers: LABEL_0, LABEL_1, ... in this order."""
    return all(
        re.fullmatch(rf"label_?{index}", name, re.IGNORECASE) is not None for index, name in enumerate(model_labels)
    )


def order_of(task: Task, model_labels: list[str]) -> list[int]:
    """Return the index of the model's output for each of the task's labels; 0, 1, ... for generic names (`LABEL_0`).

    Raises:
        InputError: the number of labels or their names differ.
    """
    if len(task.labels) != len(model_labels):
        raise InputError(
            f"--task {task.name}: the task has {len(task.labels)} labels, and the model has {len(model_labels)} "
            f"({', '.join(model_labels)}). Choose the task that the model was trained for."
        )
    if _generic(model_labels):
        return list(range(len(model_labels)))
    finder = _Finder(model_labels, range(len(model_labels)))
    order = [finder.find(name) for name in task.labels]
    if -1 in order or len(set(order)) < len(order):
        raise InputError(
            f"--task {task.name}: the task's labels {', '.join(task.labels)} differ from the model's labels "
            f"{', '.join(model_labels)}. Write the same names in id2label of the model's config.json, or "
            "in a copy of the task's TOML in eval/."
        )
    return order


def _position(label: Any) -> int | None:
    """Return the whole number that a label means: 1 for 1, 1.0, "1" and "1.0". Return None for any other label."""
    if isinstance(label, bool) or not isinstance(label, VALUES):
        return None
    text = str(label).strip()
    return int(text.partition(".")[0]) if re.fullmatch(r"-?[0-9]{1,18}(\.0*)?", text) else None


def _fold(label: str) -> str:
    """Return the form of a label that is compared: in lower case, with one space between words; 1.0 becomes "1".

    White space, underscores, and a hyphen between two letters separate words. All other characters are kept. The
    result is in Unicode's form NFC.
    """
    if (position := _position(label)) is not None:
        return str(position)
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(label)).casefold())
    text = re.sub(r"[\s_]+", " ", text).strip()
    letters = [unicodedata.category(character)[0] in "LM" for character in text]
    between = [0 < at < len(text) - 1 and letters[at - 1] and letters[at + 1] for at in range(len(text))]
    return "".join(" " if sign == "-" and join else sign for sign, join in zip(text, between, strict=True))
