"""Tasks: each names the text and label columns of a data set, its labels, and its metrics.

To add a task, write a TOML file in this folder, or in `eval/` of the current folder, which takes precedence.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.data import demo
from toolchain.data.metrics import METRICS
from toolchain.errors import InputError, UsageError, meant
from toolchain.recipe import Recipe
from toolchain.recipe.options import load_toml

FOLDER = Path(__file__).parent
OVERRIDES = Path("eval")

# How the vector of a text is made: the mean of its tokens' vectors, or the vector of the first token.
POOLINGS = ("mean", "cls")

# Keys of a task that only some heads need. `to_json` leaves them out if they are not set.
OF_SOME_HEADS = ("label_columns", "head", "threshold", "pooling", "normalize", "query_column")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: the columns, labels and metrics of a data set, and where its data are.

    If `metrics` is empty, the metrics of the model's head are used; `primary` is the metric that gates compare. `head`
    is a name in `heads.HEADS`, or None for the model's own head. `label_columns`, used instead of `label_column`, has
    one column for each label, which is 1 if the row has the label. A model predicts such a label if its score is at
    least `threshold`. `pooling` is for an encoder without a head: the vector of a text is the mean of its tokens'
    vectors (`mean`) or the vector of its first token (`cls`). With `normalize` the vectors have length 1.
    `query_column`, for a reranker, has the name or number of a row's query; without it, rows with the same first text
    belong to one query.

    `folder` is the folder of the data in this package. `hub` has the arguments of `datasets.load_dataset`: `path`,
    `config`, and `splits`, which maps our names of splits to the hub's. Both are empty if the task has no own data.
    """

    name: str
    text_columns: tuple[str, ...]
    label_column: str = ""
    label_columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    primary: str = ""
    head: str | None = None
    threshold: float | None = None
    pooling: str | None = None
    normalize: bool | None = None
    query_column: str | None = None
    folder: str | None = None
    hub: dict[str, Any] = field(default_factory=dict)  # any TOML: mostly arguments of load_dataset

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", str(self.name)):  # it becomes part of file names
            raise InputError(f"task {self.name!r}: the name is not valid. Use letters, digits, '-' and '_'.")

    def to_json(self) -> dict[str, Any]:
        """Return the task as JSON for a bundle's manifest. Keys of `OF_SOME_HEADS` are left out if they are not set."""
        values = dataclasses.asdict(self)
        return {key: value for key, value in values.items() if key not in OF_SOME_HEADS or value not in (None, ())}


def load_task(recipe: Recipe) -> Task:
    """Return the task that a recipe names.

    Raises:
        UsageError: the task does not exist.
        InputError: its TOML file lacks a key, has an unknown key, or names an unknown metric.
    """
    name = recipe.task or (recipe.model if recipe.model in demo.MODELS else "sst2")
    if name == "custom":
        return _custom(recipe)
    places = [Path(name)] if name.endswith(".toml") else [folder / f"{name}.toml" for folder in (OVERRIDES, FOLDER)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        known = sorted(path.stem for path in FOLDER.glob("*.toml"))
        hint = meant(name, [*known, "custom", *(path.stem for path in OVERRIDES.glob("*.toml"))])
        raise UsageError(
            f"--task {name}: the task is unknown.{hint} Choose one of {', '.join(known)}, custom, or a TOML file."
        )
    return _from_toml(file)


def task_from(values: Mapping[str, Any]) -> Task:
    """Return the task that TOML or JSON values describe. Lists become tuples.

    Raises:
        TypeError: a key is unknown or missing.
    """
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Task(**fields)


def _from_toml(file: Path) -> Task:
    values = {"name": file.stem, **load_toml(file)}
    known = [entry.name for entry in dataclasses.fields(Task)]
    if extra := [key for key in values if key not in known]:
        raise InputError(f"{file}: the key {extra[0]!r} is unknown. Known keys are {', '.join(known)}.")
    labelled = "label_columns" if "label_columns" in values else "label_column"
    if absent := [key for key in ("text_columns", labelled) if key not in values]:
        raise InputError(f"{file}: the key {absent[0]} is missing. Add it, as in toolchain/data/tasks/sst2.toml.")
    task = task_from(values)
    _check_values(file, task)
    return task


def _check_values(file: Path, task: Task) -> None:
    """Refuse values of the wrong type, unknown metrics, and keys that exclude each other."""
    for key in ("text_columns", "labels", "metrics", "label_columns"):
        value = getattr(task, key)
        if not (isinstance(value, tuple) and all(isinstance(entry, str) for entry in value)):
            raise InputError(f"{file}: {key} is {value!r}. Write a list of texts, as in sst2.toml.")
    if task.label_column and task.label_columns:
        raise InputError(f"{file}: label_column and label_columns are both given. Leave one of them out.")
    if len(task.text_columns) not in (1, 2):
        raise InputError(f"{file}: text_columns are {', '.join(task.text_columns) or 'empty'}. Name one column or two.")
    if unknown := [name for name in (*task.metrics, task.primary) if name and name not in METRICS]:
        raise InputError(f"{file}: the metric {unknown[0]!r} is unknown. Choose from {', '.join(METRICS)}.")
    if task.primary and task.primary not in task.metrics:
        raise InputError(f"{file}: the primary metric {task.primary} is not in the list `metrics`. Add it to the list.")
    if task.hub and not (isinstance(task.hub, dict) and "path" in task.hub):
        raise InputError(f"{file}: hub is {task.hub!r}. Write [hub] and path = ..., as in sst2.toml.")
    _check_pooling(file, task)


def _check_pooling(file: Path, task: Task) -> None:
    if task.pooling not in (None, *POOLINGS):
        raise InputError(f"{file}: pooling is {task.pooling!r}. Write {' or '.join(POOLINGS)}.")
    if task.normalize is not None and (not isinstance(task.normalize, bool) or not task.pooling):
        raise InputError(f"{file}: normalize is {task.normalize!r}. Write true or false, and set pooling too.")


def _custom(recipe: Recipe) -> Task:
    columns = _columns(str(recipe.text_column))
    if len(columns) > 2 or not all(map(str.strip, columns)):
        raise UsageError(
            f"--text-column {recipe.text_column}: one or two columns can be named. Write A for one, or A,B for two."
        )
    labels = _columns(str(recipe.label_column))
    if len({*columns, *labels}) < len(columns) + len(labels):
        raise UsageError(
            f"--text-column {recipe.text_column} and --label-column {recipe.label_column}: a column is named twice. "
            "Name distinct columns."
        )
    if len(labels) > 1:
        return Task(name="custom", text_columns=columns, label_columns=labels)
    return Task(name="custom", text_columns=columns, label_column=labels[0])


def _columns(names: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list, without outer spaces. A single name keeps its spaces."""
    return tuple(column.strip() for column in names.split(",")) if "," in names else (names,)
