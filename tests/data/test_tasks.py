import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolchain.data.demo import MODELS
from toolchain.data.metrics import METRICS
from toolchain.data.tasks import FOLDER, Task, load_task, task_from
from toolchain.errors import InputError, UsageError
from toolchain.recipe import Recipe

SHIPPED = sorted(path.stem for path in FOLDER.glob("*.toml"))

# Wang et al., GLUE, table 1, and the columns and labels of nyu-mll/glue.
GLUE = {
    "cola": (("sentence",), 2, ("matthews_correlation",)),
    "sst2": (("sentence",), 2, ("accuracy",)),
    "mrpc": (("sentence1", "sentence2"), 2, ("accuracy", "f1")),
    "stsb": (("sentence1", "sentence2"), 0, ("pearson", "spearman")),
    "qqp": (("question1", "question2"), 2, ("accuracy", "f1")),
    "mnli": (("premise", "hypothesis"), 3, ("accuracy",)),
    "qnli": (("question", "sentence"), 2, ("accuracy",)),
    "rte": (("sentence1", "sentence2"), 2, ("accuracy",)),
    "wnli": (("sentence1", "sentence2"), 2, ("accuracy",)),
}


def load(name: str | None = None, **values: Any) -> Task:
    return load_task(Recipe.make({**values, "task": name} if name else values))


def test_glue_and_the_demos_are_shipped() -> None:
    assert sorted([*GLUE, *MODELS]) == SHIPPED


@pytest.mark.parametrize("name", GLUE)
def test_glue_tasks_are_as_glue_defines_them(name: str) -> None:
    task = load(name)
    assert (task.text_columns, len(task.labels), task.metrics) == GLUE[name]
    assert (task.hub["path"], task.hub["config"], task.label_column) == ("nyu-mll/glue", name, "label")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_task_has_known_metrics_and_one_source(name: str) -> None:
    task = load(name)
    assert set(task.metrics) <= set(METRICS)
    assert task.primary in task.metrics
    assert bool(task.hub) != bool(task.folder)


def test_the_default_is_sst2() -> None:
    assert load().name == "sst2"


def test_unknown_task_names_the_known() -> None:
    with pytest.raises(
        UsageError,
        match=r"^--task sst3: the task is unknown\. Did you mean sst2\? Choose one of cola, .*, custom, or a",
    ):
        load("sst3")


def test_one_column_is_named_as_it_stands() -> None:
    task = load("custom", text_column=" body", label_column="label ")
    assert (task.text_columns, task.label_column) == ((" body",), "label ")


def test_custom_is_any_columns() -> None:
    task = load("custom", text_column="a, b", label_column="c")
    assert (task.text_columns, task.label_column, task.metrics) == (("a", "b"), "c", ())


@pytest.mark.parametrize(("texts", "label"), [("a,a", "l"), ("a", "a"), ("a,b", "b")])
def test_a_column_is_named_once(texts: str, label: str) -> None:
    with pytest.raises(UsageError, match="a column is named twice"):
        load_task(Recipe(task="custom", text_column=texts, label_column=label))


@pytest.mark.parametrize("columns", ["a,b,c", "a,", ",", " "])
def test_custom_needs_one_or_two_columns(columns: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^--text-column {columns}: one or two columns can be named\. Write A for one, or A,B"
    ):
        load("custom", text_column=columns, label_column="c")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to a folder whose eval/ has a task of one's own."""
    (tmp_path / "eval").mkdir()
    monkeypatch.chdir(tmp_path)

    def with_text(text: str) -> Path:
        (tmp_path / "eval" / "own.toml").write_text(text)
        return tmp_path / "eval" / "own.toml"

    return with_text


OWN = 'text_columns = ["t"]\nlabel_column = "l"\n'


def test_a_task_in_eval_is_known_by_its_name(write: Callable[[str], Path]) -> None:
    write(OWN)
    assert load("own") == Task(name="own", text_columns=("t",), label_column="l")


def test_a_task_in_eval_wins(write: Callable[[str], Path]) -> None:
    write(OWN).rename("eval/sst2.toml")
    assert load("sst2").text_columns == ("t",)


def test_a_task_may_be_any_file(write: Callable[[str], Path]) -> None:
    assert load(str(write(OWN))).name == "own"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('text_columns = ["t"]', "the key label_column is missing. Add it, as in"),
        (OWN + "colour = 1", "the key 'colour' is unknown. Known keys are name, text_columns"),
        (OWN + 'metrics = ["bleu"]', "the metric 'bleu' is unknown. Choose from accuracy, f1"),
        (OWN + 'metrics = ["f1"]\nprimary = "accuracy"', "the primary metric accuracy is not in the list `metrics`"),
        (OWN + 'metrics = "f1"', "metrics is 'f1'. Write a list of texts"),
        (OWN + "labels = [0, 1]", "labels is (0, 1). Write a list of texts"),
        ('text_columns = "t"\nlabel_column = "l"', "text_columns is 't'. Write a list of texts"),
        ('text_columns = []\nlabel_column = "l"', "text_columns are empty. Name one column or two."),
        (OWN + 'hub = "glue"', "hub is 'glue'. Write [hub]"),
        (OWN + '[hub]\nconfig = "x"', "hub is {'config': 'x'}. Write [hub]"),
        ("text", "this is not a valid TOML file"),
    ],
)
def test_a_broken_task_says_what_is_wrong(write: Callable[[str], Path], text: str, message: str) -> None:
    file = write(text)
    with pytest.raises(InputError) as error:
        load("own")
    assert str(error.value).startswith(f"{file.relative_to(Path.cwd())}: {message}")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_task_survives_the_manifest(name: str) -> None:

    task = load(name)
    assert task_from(json.loads(json.dumps(dataclasses.asdict(task)))) == task
