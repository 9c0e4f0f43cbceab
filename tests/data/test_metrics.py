import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolchain.data.metrics import METRICS, accuracy, f1, load_metric, matthews_correlation, pearson, spearman

binary = hnp.arrays(np.int64, st.shared(st.integers(1, 40), key="n"), elements=st.integers(0, 1))
numbers = hnp.arrays(np.float64, st.shared(st.integers(2, 40), key="n"), elements=st.integers(-50, 50))


def test_accuracy_by_hand() -> None:
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75


def test_f1_by_hand() -> None:
    # 2 true positives, 1 false positive, 2 false negatives: 2*2 / (2*2 + 1 + 2)
    found = f1(np.array([1, 1, 1, 1, 0, 0]), np.array([1, 1, 0, 0, 1, 0]))
    assert found == pytest.approx(4 / 7)


def test_f1_is_of_class_1_and_0_where_it_never_occurs() -> None:
    assert f1(np.array([0, 0]), np.array([0, 0])) == 0.0
    assert f1(np.array([1, 0, 0]), np.array([1, 1, 1])) == pytest.approx(0.5)


def test_matthews_by_hand() -> None:
    # tp 2, tn 1, fp 1, fn 1: (2*1 - 1*1) / sqrt(3 * 3 * 2 * 2)
    found = matthews_correlation(np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 0, 1]))
    assert found == pytest.approx(1 / 6)


def test_pearson_by_hand() -> None:
    # deviations (-1, 0, 1) and (-1, -1, 2) about means 2 and 2: 3 / sqrt(2 * 6)
    assert pearson(np.array([1.0, 2, 3]), np.array([1.0, 1, 4])) == pytest.approx(3 / np.sqrt(12))


def test_spearman_by_hand() -> None:
    # one swap of neighbours among 4: 1 - 6 * 2 / (4 * 15)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 30, 20, 400])) == pytest.approx(0.8)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize(("one", "other"), [([1.0, 1, 1], [1.0, 2, 3]), ([1.0, 2], [5.0, 5]), ([1.0], [2.0])])
def test_correlation_with_a_constant_is_0(name: str, one: list[float], other: list[float]) -> None:
    assert METRICS[name](np.array(one), np.array(other)) == 0.0


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning:sklearn")
@given(binary, binary)
def test_classification_is_as_scikit_learn_has_it(references: np.ndarray, predictions: np.ndarray) -> None:
    found = [METRICS[name](references, predictions) for name in ("accuracy", "f1", "matthews_correlation")]
    assert found == pytest.approx(
        [
            sklearn.metrics.accuracy_score(references, predictions),
            sklearn.metrics.f1_score(references, predictions, zero_division=0),
            sklearn.metrics.matthews_corrcoef(references, predictions),
        ]
    )


@given(numbers.filter(np.ptp), numbers.filter(np.ptp))
def test_correlation_is_as_scipy_has_it(references: np.ndarray, predictions: np.ndarray) -> None:
    assert [pearson(references, predictions), spearman(references, predictions)] == pytest.approx(
        [
            scipy.stats.pearsonr(references, predictions).statistic,
            scipy.stats.spearmanr(references, predictions).statistic,
        ]
    )


@given(numbers.filter(np.ptp), st.floats(0.1, 10), st.floats(-5, 5))
def test_correlation_ignores_the_scale(values: np.ndarray, factor: float, shift: float) -> None:
    assert pearson(values, values * factor + shift) == pytest.approx(1.0)


def test_load_metric_of_no_such_name() -> None:
    with pytest.raises(KeyError, match="bleu"):
        load_metric("bleu")


OFFLINE = """
import evaluate
from toolchain.data.metrics import GLUE, load_metric
for name in GLUE:
    metric = load_metric(name)
    assert isinstance(metric, evaluate.Metric)
    metric.add_batch(predictions=[1, 0], references=[1, 1])
    metric.add(prediction=0, reference=0)
    print(name, round(metric.compute()[name], 4))
print(evaluate.combine([load_metric("accuracy"), load_metric("f1")]).compute(predictions=[1], references=[1]))
"""


@pytest.mark.slow
def test_load_metric_gives_evaluates_metrics_offline_and_from_an_empty_home(tmp_path: Path, root: Path) -> None:
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=clean, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "accuracy 0.6667",
        "f1 0.6667",
        "matthews_correlation 0.5",
        "pearson 0.5",
        "spearman 0.5",
        "{'accuracy': 1.0, 'f1': 1.0}",
    ], done.stderr
