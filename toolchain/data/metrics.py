"""GLUE's metrics over scikit-learn and scipy, since `evaluate.load` needs the hub."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import evaluate

Values = NDArray[np.float64] | NDArray[np.int64]


def accuracy(references: Values, predictions: Values) -> float:
    """Share of predictions that equal their reference."""
    return float(np.mean(references == predictions))


def f1(references: Values, predictions: Values) -> float:
    """F1 of class 1, as GLUE scores mrpc and qqp; 0 where class 1 never occurs."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, pos_label=1, zero_division=0))


def matthews_correlation(references: Values, predictions: Values) -> float:
    """Matthews' correlation coefficient, as GLUE scores cola; 0 where one side is constant."""
    from sklearn.metrics import matthews_corrcoef

    if np.ptp(references) == 0 or np.ptp(predictions) == 0:
        return 0.0  # as scikit-learn says, which also warns
    return float(matthews_corrcoef(references, predictions))


def pearson(references: Values, predictions: Values) -> float:
    """Linear correlation, whatever the scale of either side; 0 where one side is constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, references, predictions)


def spearman(references: Values, predictions: Values) -> float:
    """Rank correlation; 0 where one side is constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, references, predictions)


def _correlation(function: Callable[..., object], one: Values, other: Values) -> float:
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(function(one, other).statistic)  # type: ignore[attr-defined]


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}


def load_metric(name: str) -> "evaluate.Metric":
    """Return the metric as an `evaluate.Metric`, for those who compose metrics with that library.

    Raises:
        KeyError: `METRICS` has no such name.
    """
    import datasets
    import evaluate

    function = METRICS[name]
    kind = "float64" if name in {"pearson", "spearman"} else "int64"

    class GlueMetric(evaluate.Metric):  # type: ignore[misc]
        """One of GLUE's metrics."""

        def _info(self) -> "evaluate.MetricInfo":
            columns = {"predictions": datasets.Value(kind), "references": datasets.Value(kind)}
            return evaluate.MetricInfo(
                description=str(function.__doc__),
                citation="Wang et al., GLUE, 2018",
                features=datasets.Features(columns),
            )

        def _compute(self, *, predictions: list[float], references: list[float]) -> dict[str, float]:
            return {name: function(np.asarray(references), np.asarray(predictions))}

    return GlueMetric(keep_in_memory=True)
