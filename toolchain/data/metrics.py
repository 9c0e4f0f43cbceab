"""The metrics of GLUE, multi-label, token and ranking tasks. Unlike `evaluate.load`, they work offline.

References and predictions are int64 [n] for classes, float64 [n] for a regression, bool [n, labels] for several labels
per row, and int64 [n, words] for entities (codes, see `entity_lengths`). For ranked texts, references are float64
[n, 2], the relevance of the text and the number of its query, and predictions are scores, float64 [n].
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import evaluate

Values = NDArray[np.float64] | NDArray[np.int64] | NDArray[np.bool_]
Tables = NDArray[np.float64]


def accuracy(references: Values, predictions: Values) -> float:
    """Return the fraction of predictions that equal their reference, 0 to 1."""
    return float(np.mean(references == predictions))


def f1(references: Values, predictions: Values) -> float:
    """Return F1 of class 1, as GLUE scores mrpc and qqp; 0 if class 1 never occurs."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, pos_label=1, zero_division=0))


def matthews_correlation(references: Values, predictions: Values) -> float:
    """Return Matthews' correlation coefficient, as GLUE scores cola; 0 if references or predictions are constant."""
    from sklearn.metrics import matthews_corrcoef

    if np.ptp(references) == 0 or np.ptp(predictions) == 0:
        return 0.0  # the same value as scikit-learn's, without its warning
    return float(matthews_corrcoef(references, predictions))


def pearson(references: Values, predictions: Values) -> float:
    """Return Pearson's linear correlation; 0 if references or predictions are constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, references, predictions)


def spearman(references: Values, predictions: Values) -> float:
    """Return Spearman's rank correlation; 0 if references or predictions are constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, references, predictions)


def _correlation(function: Callable[..., object], one: Values, other: Values) -> float:
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(function(one, other).statistic)  # type: ignore[attr-defined]


def micro_f1(references: Values, predictions: Values) -> float:
    """Return F1 over all labels of all rows, from two arrays bool [n, labels]; 0 if no label occurs."""
    return _of_counts("micro_f1", references, predictions)


def macro_f1(references: Values, predictions: Values) -> float:
    """Return the mean over labels of each label's F1, from two arrays bool [n, labels].

    A label that never occurs has F1 0.
    """
    return _of_counts("macro_f1", references, predictions)


def subset_accuracy(references: Values, predictions: Values) -> float:
    """Return the fraction of rows whose labels are all predicted correctly, from two arrays bool [n, labels]."""
    return float((references == predictions).all(axis=1).mean())


def ndcg_at_10(references: Values, predictions: Values) -> float:
    """Return the normalised discounted cumulative gain of the ten texts with the highest scores, averaged over queries.

    References are float64 [n, 2], the relevance and the number of the query; predictions are scores, float64 [n]. The
    gain is the relevance, averaged over texts of equal score. A query without a relevant text counts as 0.
    """
    return float(_of_queries(_ndcg, references, predictions).mean())


def mrr(references: Values, predictions: Values) -> float:
    """Return the mean reciprocal rank: 1 / rank of the first relevant text, averaged over queries.

    For the shapes, see `ndcg_at_10`. A text is relevant if its relevance is above 0. Among texts of equal score, the
    relevant one ranks last. A query without a relevant text counts as 0.
    """
    return float(_of_queries(_reciprocal_rank, references, predictions).mean())


def _ndcg(relevance: Tables, scores: Tables) -> float:
    from sklearn.metrics import ndcg_score

    if len(scores) == 1:  # ndcg_score refuses a single text
        return float(relevance[0] > 0)
    return float(ndcg_score(relevance[None], scores[None], k=10))


def _reciprocal_rank(relevance: Tables, scores: Tables) -> float:
    if not relevance.any():
        return 0.0
    return float(1 / (scores >= scores[relevance > 0].max()).sum())


def _of_queries(value: Callable[[Tables, Tables], float], references: Values, predictions: Values) -> Tables:
    """Return the result of `value(relevance, scores)` for each query's texts, float64 [queries], by query number."""
    order = np.argsort(references[:, 1], kind="stable")
    starts = np.flatnonzero(np.diff(references[order, 1])) + 1
    parts, scores = np.split(order, starts), predictions.astype(np.float64)
    return np.array([value(references[part, 0].astype(np.float64), scores[part]) for part in parts])


def entity_f1(references: Values, predictions: Values) -> float:
    """Return F1 of entities, from two arrays of codes, int64 [n, words]; 0 if there are no entities.

    A predicted entity is right if a reference entity has exactly the same words and the same type.
    """
    return _of_counts("entity_f1", references, predictions)


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
    "spearman_cosine": spearman,
    "micro_f1": micro_f1,
    "macro_f1": macro_f1,
    "subset_accuracy": subset_accuracy,
    "ndcg_at_10": ndcg_at_10,
    "mrr": mrr,
    "entity_f1": entity_f1,
}


# The metrics of GLUE's tasks.
GLUE = ("accuracy", "f1", "matthews_correlation", "pearson", "spearman")

# The metrics of numbers: of a regression model, and (the last one) of the cosine similarities of an embedding model.
CORRELATIONS = ("pearson", "spearman", "spearman_cosine")

# The metrics that need exactly two classes.
TWO_CLASSES = ("f1",)

# The metrics of multi-label classifiers.
LABEL_SETS = ("micro_f1", "macro_f1", "subset_accuracy")

# The metrics of rows with several labels or tags.
OF_SEVERAL = (*LABEL_SETS, "entity_f1")

# The metrics that are the fraction of correct rows.
SHARES = ("accuracy", "subset_accuracy")

# Metric -> function that computes it. The argument has counts as in `row_counts`, summed over rows, float64
# [..., 3, labels]; the result is float64 [...].
OF_COUNTS: dict[str, Callable[[Tables], Tables]] = {
    "micro_f1": lambda counts: _f1_of(counts.sum(-1)),
    "macro_f1": lambda counts: _f1_of(np.moveaxis(counts, -1, 0)).mean(axis=0),
    "entity_f1": lambda counts: _f1_of(counts.sum(-1)),
}


# Metric -> function that takes references, float64 [n, 2], and predictions, and returns a value for each query. The
# metric is the mean of these values.
OF_QUERIES: dict[str, Callable[[Values, Values], Tables]] = {
    "ndcg_at_10": partial(_of_queries, _ndcg),
    "mrr": partial(_of_queries, _reciprocal_rank),
}


def row_counts(references: Values, predictions: Values) -> Tables:
    """Return the counts for F1 in each row: correct labels, labels in the reference, and labels in the prediction.

    For labels, bool [n, labels], each count is 0 or 1, float64 [n, 3, labels]. For entities, codes int64 [n, words],
    the counts are numbers of entities, float64 [n, 3, 1].
    """
    if references.dtype.kind == "i":
        lengths, others = entity_lengths(references), entity_lengths(predictions)
        both = (lengths > 0) & (lengths == others) & (references == predictions)
        return np.stack([(found > 0).sum(axis=1) for found in (both, lengths, others)], axis=1)[..., None].astype(float)
    one, other = references.astype(bool), predictions.astype(bool)
    return np.stack([one & other, one, other], axis=1).astype(np.float64)


def entity_lengths(codes: Values) -> NDArray[np.int64]:
    """Return for each word the number of words in the entity that begins there, or 0 if none does, int64 [n, words].

    `codes` are 0 outside of entities, 2 t - 1 for the first word of an entity of type t (from 1), and 2 t for its other
    words.
    """
    on, lengths = (codes > 0) & (codes % 2 == 0), np.zeros(codes.shape, np.int64)
    run = np.zeros(len(codes), np.int64)
    for word in reversed(range(codes.shape[1])):
        lengths[:, word] = np.where(codes[:, word] % 2 == 1, run + 1, 0)
        run = np.where(on[:, word], run + 1, 0)
    return lengths


def entities_apart(references: Values, predictions: Values, types: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return references and predictions with one row for each entity, bool [entities, types], for metrics of labels.

    The rows are all entities that occur in either array of codes, int64 [n, words]. A row is True at the entity's type
    if that array has the entity, and False elsewhere.
    """
    found = []
    for codes in (references, predictions):
        lengths = entity_lengths(codes)
        rows, words = np.nonzero(lengths)
        found.append(np.stack([rows, words, lengths[rows, words], (codes[rows, words] - 1) // 2], axis=1))
    every, inverse = np.unique(np.concatenate(found), axis=0, return_inverse=True)
    both = [np.zeros((len(every), types), bool) for _ in found]
    for labels, own in zip(both, np.split(inverse.ravel(), [len(found[0])]), strict=True):
        labels[own, every[own, 3]] = True
    return both[0], both[1]


def _f1_of(counts: Tables) -> Tables:
    """Return F1, [...], from the three counts of `row_counts`, [..., 3]; 0 if all three are 0."""
    both, total = counts[..., 0], counts[..., 1] + counts[..., 2]
    return np.asarray(2 * both / np.where(total > 0, total, 1))


def _of_counts(name: str, references: Values, predictions: Values) -> float:
    return float(OF_COUNTS[name](row_counts(references, predictions).sum(axis=0)))


# Metric -> function that takes confusion tables, float64 [..., classes, classes] with references along the rows, and
# returns the metric of each table, float64 [...]. The entries may be weights of 0 or more instead of counts.
OF_TABLES: dict[str, Callable[[Tables], Tables]] = {
    "f1": lambda tables: 2 * tables[..., 1, 1] / (tables[..., 1, :].sum(-1) + tables[..., :, 1].sum(-1)),
    "matthews_correlation": lambda tables: _matthews(tables),
}


def _matthews(tables: Tables) -> Tables:
    """Return Matthews' correlation, for any number of classes (Gorodkin, 2004), of each confusion table."""
    right, rows = np.trace(tables, axis1=-2, axis2=-1), tables.sum((-2, -1))
    referred, predicted = tables.sum(-1), tables.sum(-2)
    variances = (rows**2 - (referred**2).sum(-1)) * (rows**2 - (predicted**2).sum(-1))
    return np.asarray((right * rows - (referred * predicted).sum(-1)) / np.sqrt(variances))


def load_metric(name: str) -> "evaluate.Metric":
    """Return one of GLUE's metrics as an `evaluate.Metric`, which `evaluate.combine` accepts.

    Raises:
        KeyError: `name` is not one of `GLUE`.
    """
    import datasets
    import evaluate

    function = {one: METRICS[one] for one in GLUE}[name]
    kind = "float64" if name in CORRELATIONS else "int64"

    class GlueMetric(evaluate.Metric):  # type: ignore[misc]
        """The GLUE metric `name`, computed by the function of this module."""

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
