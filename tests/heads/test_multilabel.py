"""Several labels a row, against scikit-learn and scipy, and the refusals of what is not a list."""

import csv
import json

import numpy as np
import pytest
from scipy.special import expit, rel_entr
from sklearn.metrics import accuracy_score, f1_score

from tests.head_of import head_of
from toolchain.data.metrics import LABEL_SETS, METRICS
from toolchain.data.rows import Rows, load_rows
from toolchain.data.tasks import Task
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.compare import FAILS, PASSES, compare
from toolchain.evaluation.statistics import metric_ci95, metric_drop
from toolchain.heads.predictions import Predictions

HEAD = head_of("a", "b", "c", name="multilabel")
GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.random((400, 3)) < [0.6, 0.3, 0.1]


def spoiled(share, seed):
    """Return predictions in which a share of the labels is wrong."""
    return TRUTH ^ (np.random.default_rng(seed).random(TRUTH.shape) < share)


def predictions(predicted):
    return Predictions(TRUTH, predicted, np.where(predicted, 1, -1).astype(np.float32))


def test_metrics_are_scikit_learns():
    found = spoiled(0.2, 1)
    expected = (
        f1_score(TRUTH, found, average="micro"),
        f1_score(TRUTH, found, average="macro"),
        accuracy_score(TRUTH, found),
    )
    assert [METRICS[name](TRUTH, found) for name in LABEL_SETS] == pytest.approx(expected)
    nothing = np.zeros_like(TRUTH)
    assert [METRICS[name](nothing, nothing) for name in LABEL_SETS] == [0, 0, 1]


@pytest.mark.parametrize("cells", [[["b", "a"], [], ["c"]], ['["b", "a"]', "[]", '["c"]'], [[1, 0], [], [2]]])
def test_labels_are_lists_of_names_or_positions(cells):
    rows = Rows("f", [("t",)] * 3, cells)
    assert HEAD.read(rows).tolist() == [[True, True, False], [False] * 3, [False, False, True]]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a", "row 2 has the labels 'a', which are not a list. Write a JSON list"),
        ('{"a": 1}', "which are not a list"),
        (["a", "d"], "row 2 has the label 'd', which is not among the model's labels: a, b, c."),
    ],
)
def test_what_is_not_a_list_or_not_a_label_is_refused_with_its_row(cell, message):
    with pytest.raises(InputError) as error:
        HEAD.read(Rows("f.csv", [("t",)] * 2, [["a"], cell]))
    assert str(error.value).startswith("f.csv: ")
    assert message in str(error.value)


def test_a_label_may_have_a_column_of_its_own(tmp_path):
    (tmp_path / "train.csv").write_text("s,a,b\none,1,0\ntwo,0.0,true\n")
    task = Task(name="t", text_columns=("s",), label_columns=("a", "b"))
    assert load_rows(task, "train", data=str(tmp_path)).labels == [["a"], ["b"]]
    (tmp_path / "train.csv").write_text("s,a,b\none,1,0\ntwo,0,maybe\n")
    with pytest.raises(InputError, match=r"row 2, column 'b': 'maybe' is neither 0 nor 1\. Write 1"):
        load_rows(task, "train", data=str(tmp_path))


def test_scores_are_sigmoids_and_the_threshold_decides():
    logits = np.array([[0.0, -2.0, 1000.0], [-1000.0, 0.5, -0.5]], np.float32)
    np.testing.assert_allclose(HEAD.scores(logits), expit(logits.astype(np.float64)), rtol=1e-6)
    assert HEAD.texts(logits) == ['["a", "c"]', '["b"]']
    assert HEAD.answers(logits)[0]["labels"] == ["c", "a"]
    strict = head_of("a", "b", "c", name="multilabel", threshold=0.99)
    assert strict.texts(logits) == ['["c"]', "[]"]
    assert [one["label"] for one in strict.best(logits, 2)[1]] == ["b", "c"]


def test_predictions_are_in_the_tasks_order():
    head = head_of("a", "b", "c", name="multilabel", labels=("c", "b", "a"))
    found = head.predict(TRUTH, np.where(TRUTH, 1, -1).astype(np.float32))
    assert (found.references == TRUTH[:, ::-1]).all()
    assert (found.predicted == found.references).all()
    assert found.logits[0, 0] == (1 if TRUTH[0, 0] else -1)
    assert head.shown(np.array([True, False, True])) == "c, a"


def test_the_divergence_is_that_of_each_label():
    one, other = np.random.default_rng(0).normal(size=(2, 50, 3)).astype(np.float32) * 3
    p, q = expit(one.astype(np.float64)), expit(other.astype(np.float64))
    expected = (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).sum(axis=1).mean()
    found = HEAD.distance(one, other)
    assert found.kl == pytest.approx(expected, rel=1e-9)
    assert found.changed == pytest.approx(1 - f1_score(one >= 0, other >= 0, average="micro"))
    assert HEAD.divergence(np.full((1, 3), 1e4, np.float32), np.full((1, 3), -1e4, np.float32)) == pytest.approx(3e4)
    assert HEAD.margins(one).tolist() == np.abs(one).min(axis=1).tolist()


@pytest.mark.parametrize("name", LABEL_SETS)
def test_an_interval_is_as_wide_as_that_of_a_bootstrap_of_rows(name):
    found = spoiled(0.2, 1)
    low, high = metric_ci95(name, TRUTH, found, seed=0)
    rows = np.random.default_rng(1).integers(len(TRUTH), size=(400, len(TRUTH)))
    drawn = [METRICS[name](TRUTH[chosen], found[chosen]) for chosen in rows]
    assert high - low == pytest.approx(np.diff(np.quantile(drawn, [0.025, 0.975]))[0], rel=0.2)
    assert low < METRICS[name](TRUTH, found) < high


@pytest.mark.parametrize("name", LABEL_SETS)
def test_a_drop_of_nothing_still_leaves_doubt(name):
    low, high = metric_drop(name, TRUTH, TRUTH, TRUTH, confidence=0.95, seed=0)
    assert -2 < 100 * low < 0 < 100 * high < 2


def test_a_dead_label_fails_the_gate_and_the_same_predictions_pass():
    fp32 = spoiled(0.05, 1)
    dead = fp32.copy()
    dead[:, 2] = False
    for name in ("micro_f1", "macro_f1"):
        assert compare(predictions(fp32), predictions(dead), name, max_drop=1).verdict == FAILS
        assert compare(predictions(fp32), predictions(fp32), name, max_drop=2).verdict == PASSES
    assert HEAD.per_label(predictions(dead))["c"]["recall"] == 0
    assert HEAD.agreement(predictions(dead), predictions(fp32))["per_label"]["c"] < 1
    assert HEAD.agreement(predictions(dead), predictions(fp32))["per_label"]["a"] == 1


def test_each_head_refuses_what_belongs_to_the_other():
    task = {"name": "t", "text_columns": ("s",), "label_column": "l"}
    from toolchain.heads import find_head

    with pytest.raises(InputError, match=r"the task has the head sequence, but the checkpoint's config.json"):
        find_head(Task(**task, head="sequence"), ("a", "b"), possible=("multilabel",))
    with pytest.raises(InputError, match=r"the metric accuracy does not fit a multi-label classifier"):
        find_head(Task(**task, metrics=("accuracy",)), ("a", "b"), possible=("multilabel",))
    with pytest.raises(UsageError, match=r"--threshold 0\.3: a single-label classifier has no threshold"):
        find_head(Task(**task), ("a", "b"), threshold=0.3)
    with pytest.raises(UsageError, match=r"--threshold 2: the value is not between 0 and 1"):
        find_head(Task(**task), ("a", "b"), possible=("multilabel",), threshold=2)
    with pytest.raises(InputError, match="it has several label columns"):
        find_head(Task(name="t", text_columns=("s",), label_columns=("a", "b")), ("a", "b"))
    with pytest.raises(InputError, match="the head 'tags' is unknown"):
        head_of("a", name="tags")


def test_predicted_rows_have_labels_and_scores_in_every_form():
    from toolchain.evaluation.predict import csv_lines, json_lines, plain_lines

    logits = np.array([[2.0, -3.0, 1.0], [-1.0, -1.0, -1.0]], np.float32)
    rows = [{"text": "t", **answer} for answer in HEAD.answers(logits)]
    assert json.loads(json_lines(rows).splitlines()[0])["labels"] == ["a", "c"]
    (first, second) = csv.DictReader(csv_lines(rows, header=True).decode().splitlines())
    assert (json.loads(first["labels"]), json.loads(second["labels"])) == (["a", "c"], [])
    assert plain_lines(rows) == b"a, c\t0.8808, 0.7311\tt\n-\t-\tt\n"
