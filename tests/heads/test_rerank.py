"""Rankings by query, against scikit-learn; bounds over queries; and the refusals of what cannot be ranked."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from tests.head_of import head_of
from toolchain.data.metrics import METRICS, OF_QUERIES
from toolchain.data.rows import Rows, load_rows
from toolchain.data.tasks import Task
from toolchain.errors import InputError
from toolchain.evaluation.compare import FAILS, PASSES, compare
from toolchain.evaluation.statistics import metric_ci95, metric_drop
from toolchain.heads import find_head
from toolchain.heads.predictions import Predictions

TASK = {"name": "t", "text_columns": ("q", "p"), "label_column": "r", "head": "rerank"}
HEAD = find_head(Task(**TASK), ("score",))
GENERATOR = np.random.default_rng(0)
SIZES = GENERATOR.integers(2, 15, 50)
QUERIES = GENERATOR.permutation(np.repeat(np.arange(50), SIZES))  # the rows of a query are not together
# The first row of each query is its relevant one; scores have two digits, so that there are ties.
FIRST = np.isin(np.arange(len(QUERIES)), np.unique(QUERIES, return_index=True)[1])
SCORES = (FIRST * 0.5 + GENERATOR.normal(size=len(QUERIES))).round(1)
ONE_RELEVANT = np.stack([FIRST, QUERIES], axis=1).astype(np.float64)
GRADED = np.stack([GENERATOR.integers(0, 4, len(QUERIES)), QUERIES], axis=1).astype(np.float64)


def expected(function, references):
    chosen = [query == QUERIES for query in range(50)]
    return np.mean([function(references[None, rows, 0], SCORES[None, rows]) for rows in chosen])


def test_metrics_are_scikit_learns_on_50_queries_with_ties():
    assert len(np.unique(SCORES)) < len(SCORES) / 5
    found = METRICS["ndcg_at_10"](GRADED, SCORES)
    assert found == pytest.approx(expected(lambda *both: ndcg_score(*both, k=10), GRADED))
    # With one relevant text a query, the average precision of a ranking is 1 / rank.
    assert METRICS["mrr"](ONE_RELEVANT, SCORES) == pytest.approx(
        expected(label_ranking_average_precision_score, ONE_RELEVANT)
    )


def test_a_query_with_one_text_or_without_a_relevant_one_counts():
    references = np.array([[1.0, 0], [0.0, 1], [0.0, 1]])
    assert [METRICS[name](references, np.array([0.3, 0.2, 0.1])) for name in OF_QUERIES] == [0.5, 0.5]


@pytest.mark.parametrize("name", OF_QUERIES)
def test_bounds_are_those_of_a_bootstrap_of_queries(name):
    values = OF_QUERIES[name](GRADED, SCORES)
    drawn = values[np.random.default_rng(1).integers(50, size=(4000, 50))].mean(axis=1)
    low, high = metric_ci95(name, GRADED, SCORES, seed=0)
    assert high - low == pytest.approx(np.diff(np.quantile(drawn, [0.025, 0.975]))[0], rel=0.35)  # the prior widens it
    assert low < METRICS[name](GRADED, SCORES) < high
    low, high = metric_drop(name, GRADED, SCORES, SCORES, confidence=0.95, seed=0)
    assert -0.06 < low < 0 < high < 0.06  # nothing changed, which still leaves doubt


def test_a_reversed_order_fails_the_gate_and_the_same_one_passes():
    baseline, other = (Predictions(ONE_RELEVANT, one, one[:, None].astype(np.float32)) for one in (SCORES, -SCORES))
    assert compare(baseline, other, "mrr", max_drop=5).verdict == FAILS
    assert compare(baseline, baseline, "mrr", max_drop=6).verdict == PASSES


def test_queries_are_a_column_or_the_first_text(tmp_path):
    (tmp_path / "train.csv").write_text("q,p,r,id\nwhy,a,1,7\nwhy,b,0,8\nhow,c,2,7\n")
    rows = load_rows(Task(**TASK, query_column="id"), "train", data=str(tmp_path))
    assert HEAD.read(rows).tolist() == [[1, 0], [0, 1], [2, 0]]
    assert HEAD.read(rows.take([2, 1])).tolist() == [[2, 0], [0, 1]]
    rows = load_rows(Task(**TASK), "train", data=str(tmp_path))
    assert HEAD.read(rows).tolist() == [[1, 0], [0, 0], [2, 1]]


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(InputError, match=r"f: row 1 has the relevance -1. Write 0 for a text that does not fit"):
        HEAD.read(Rows("f", [("q", "p")], [-1]))
    with pytest.raises(InputError, match="the task ranks texts by one number, but the model has the outputs a, b"):
        find_head(Task(**TASK), ("a", "b"))
    with pytest.raises(InputError, match=r"a reranker reads a query and a text. Name two text columns"):
        find_head(Task(**TASK | {"text_columns": ("p",)}), ("score",))
    with pytest.raises(InputError, match=r"query_column is for a reranker, and this is a single-label classifier"):
        head_of("a", "b", query_column="id")
    with pytest.raises(InputError, match="the metric accuracy does not fit a reranker"):
        find_head(Task(**TASK, metrics=("accuracy",)), ("score",))


def test_answers_are_sigmoids():
    logits = np.array([[0.0], [2.0], [-1000.0]], np.float32)
    np.testing.assert_allclose(HEAD.output("SCORE", logits), expit(logits.astype(np.float64)), rtol=1e-6)
    assert HEAD.output("LOGITS", logits) is logits
    assert HEAD.answers(logits)[0] == HEAD.responses(logits)[0] == {"label": None, "score": 0.5}
