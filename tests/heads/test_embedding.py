"""Cosines of vectors against scikit-learn, and the refusals of what is not a pair with a number."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import paired_cosine_distances

from toolchain.data.metrics import METRICS
from toolchain.data.rows import Rows
from toolchain.data.tasks import Task, load_task
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.compare import FAILS, PASSES, compare
from toolchain.heads import find_head
from toolchain.recipe import Recipe

TASK = Task(name="t", text_columns=("a", "b"), label_column="l")
HEAD = find_head(TASK, (), possible=("embedding",), width=8)
GENERATOR = np.random.default_rng(0)
VECTORS = GENERATOR.normal(size=(600, 8)).astype(np.float32)
REFERENCES = 1 - paired_cosine_distances(VECTORS[::2], VECTORS[1::2]) + GENERATOR.normal(size=300) / 10


def test_predictions_are_cosines_of_first_and_second_texts():
    found = HEAD.predict(REFERENCES, VECTORS)
    np.testing.assert_allclose(found.predicted, 1 - paired_cosine_distances(VECTORS[::2], VECTORS[1::2]), atol=1e-6)
    assert found.logits.shape == (300, 2, 8)
    assert METRICS["spearman_cosine"](REFERENCES, found.predicted) == pytest.approx(
        spearmanr(REFERENCES, found.predicted).statistic
    )
    assert HEAD.sequences([("a", "b"), ("c", "d")]) == [("a",), ("b",), ("c",), ("d",)]


def test_agreement_is_the_cosine_to_the_reference():
    other = VECTORS + GENERATOR.normal(size=VECTORS.shape).astype(np.float32) / 10
    near = 1 - paired_cosine_distances(VECTORS, other)
    found = HEAD.agreement(HEAD.predict(REFERENCES, other), HEAD.predict(REFERENCES, VECTORS))
    assert found == pytest.approx({"cosine_min": near.min(), "cosine_p01": np.quantile(near, 0.01)})
    assert HEAD.nearness(np.zeros((1, 8)), VECTORS[:1]) == [0]


def test_a_planted_fault_fails_the_gate():
    exact, shifted = (HEAD.predict(REFERENCES, vectors) for vectors in (VECTORS, np.roll(VECTORS, 1, axis=0)))
    assert compare(exact, shifted, "spearman_cosine", max_drop=1).verdict == FAILS
    assert compare(exact, exact, "spearman_cosine", max_drop=1).verdict == PASSES


def test_a_vector_has_no_labels_and_answers_itself():
    assert HEAD.answers(VECTORS[:1]) == HEAD.responses(VECTORS[:1]) == [{"embedding": VECTORS[0].tolist()}]
    assert HEAD.outputs == {"EMBEDDING": 8}
    assert HEAD.output("EMBEDDING", VECTORS) is VECTORS
    with pytest.raises(UsageError, match="top_k=None: an embedding model has no labels"):
        HEAD.best(VECTORS, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_columns": ("a",)}, "an embedding model, which is scored on pairs of texts. Name two text columns"),
        ({"metrics": ("pearson",)}, "the metric pearson does not fit an embedding model"),
        (
            {"head": "sequence"},
            "the task has the head sequence, but the checkpoint's config.json is for the head embedding",
        ),
    ],
)
def test_a_task_of_another_head_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        find_head(dataclasses.replace(TASK, **changes), (), possible=("embedding",), width=8)


def test_a_score_that_is_not_a_number_is_refused_with_its_row():
    with pytest.raises(InputError, match=r"f: row 2 has the label 'much', and the task needs a number. Write a finite"):
        HEAD.read(Rows("f", [("a", "b")] * 2, [0.5, "much"]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('pooling = "max"', "pooling is 'max'. Write mean or cls."),
        ("normalize = true", "normalize is True. Write true or false, and set pooling too."),
    ],
)
def test_another_pooling_in_a_task_is_refused(line, message, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(f'text_columns = ["a", "b"]\nlabel_column = "l"\n{line}\n')
    with pytest.raises(InputError, match=message):
        load_task(Recipe(task=str(file)))
