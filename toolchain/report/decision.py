"""The part of the HTML page that shows whether a file may be deployed: the verdict, figures by class, changed rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolchain.checkpoint.ragged import Indices
from toolchain.data.metrics import METRICS, entities_apart
from toolchain.errors import InputError
from toolchain.evaluation.compare import compare
from toolchain.evaluation.deployment import sentence
from toolchain.evaluation.results import load_predictions
from toolchain.evaluation.statistics import metric_ci95
from toolchain.heads.predictions import Predictions, same
from toolchain.records.comparison import Comparison, NamedComparison
from toolchain.records.deployment import Deployment
from toolchain.records.result import ChangedRow, Result
from toolchain.report.columns import COMMA, Cell, Number, changed_rows

# Most classes of a confusion matrix that fits the page.
MATRIX_CLASSES = 12


@dataclass(frozen=True)
class Answer:
    """The outcome of a gated build: its text, the next command, its verdict as a CSS class, and the file it is from."""

    text: str
    next: str
    verdict: str
    source: str


@dataclass(frozen=True)
class Drop:
    """A result compared with FP32 on the same rows: the drop in points with its bounds, changed rows, and verdict."""

    name: str
    drop: Cell
    changed: Cell
    verdict: str


@dataclass(frozen=True)
class ClassRow:
    """One class: its number of rows, precision, recall and F1 (FP32 → result), and its row of the confusion matrix.

    `confusion` is None if there is no matrix: rows have several labels, or there are too many classes.
    """

    name: str
    rows: int
    cells: list[Cell]
    confusion: list[Number] | None


@dataclass(frozen=True)
class Detail:
    """Figures by class of one result, and its rows whose label differs from FP32's.

    `changed` has only the first of these rows; `changed_in_all` is the number of all of them.
    """

    name: str
    classes: list[ClassRow]
    names: list[str]
    changed: list[ChangedRow]
    changed_in_all: int
    result: Result


def answer_of(results: list[Result], deployments: list[tuple[str, Deployment]]) -> Answer | None:
    """Return the outcome of the gated build that judged the bundle of these results on the same rows, or None.

    `results` are of one task and the same rows. `deployments` are outcomes with the files that they are from.
    """
    folders, rows = {Path(result["file"]).parent for result in results}, _rows_of(results[0])
    for file, deployment in deployments:
        judged = {_rows_of(one["comparison"]) for one in deployment["candidates"]}
        if Path(file).parent.parent in folders and judged == {rows}:
            return Answer(sentence(deployment), deployment["next"], deployment["verdict"].replace(" ", "-"), file)
    return None


def _rows_of(one: Result | NamedComparison) -> tuple[str, str]:
    return one["task"], one["data_sha256"]


def predictions_of(result: Result) -> tuple[Predictions, Predictions] | None:
    """Return the predictions of a result and of its FP32 reference, or None if a file is missing or has changed."""
    try:
        return load_predictions(result), load_predictions(result, of_reference=True)
    except InputError:
        return None


def drop_of(name: str, result: Result, deployments: list[tuple[str, Deployment]]) -> Drop | None:
    """Return the drop of a result compared with FP32, with its bounds.

    The drop is taken from the gated build if that build judged this result, and otherwise computed from the saved
    predictions. The result is None if the predictions are missing.
    """
    found = _gated(result, deployments) or _compared(result)
    if found is None:
        return None
    low, high = ("?" if bound is None else f"{bound:+.2f}" for bound in found["bounds_points"])
    source = f"{result['file']} and {result['agreement']['reference']}"
    drop = Number(f"{found['drop_points']:+.2f}", found["drop_points"], "drop_points", source)
    flips = found["flips"]
    changed = Cell(reason="a regression has no labels")
    if flips:
        changed = changed_rows(flips["changed"], flips["lost"], flips["gained"], source=source)
    return Drop(name, Cell((drop, f" [{low}{COMMA}{high}]")), changed, found["verdict"] or "no limit was given")


def _gated(result: Result, deployments: list[tuple[str, Deployment]]) -> Comparison | None:
    for file, deployment in deployments:
        for one in deployment["candidates"]:
            same = (one["file"], one["backend"], one["device"], one.get("halves", False)) == (
                result["artefact"]["file"],
                result["backend"],
                result["device"],
                result.get("halves", False),
            )
            same_rows = _rows_of(one["comparison"]) == _rows_of(result)
            if same and same_rows and Path(file).parent.parent == Path(result["file"]).parent:
                return one["comparison"]
    return None


def _compared(result: Result) -> Comparison | None:
    both = predictions_of(result)
    if both is None or result["primary"] not in METRICS:
        return None
    return compare(both[1], both[0], result["primary"], seed=result.get("seed", 0)).to_json()


def reference_cell(result: Result) -> Cell | None:
    """Return the cell of the FP32 reference's metric with its 95 % interval; None if its predictions are missing."""
    both, primary = predictions_of(result), result["primary"]
    if both is None:
        return None
    values = both[1].references, both[1].predicted
    low, high = metric_ci95(primary, *values, seed=result.get("seed", 0))
    value = METRICS[primary](*values)
    source = f"{Path(result['file']).parent}/{result['agreement'].get('predictions', {}).get('file')}"
    shown = [
        Number(format(one, pattern), one, key, source)
        for one, pattern, key in ((value, ".4f", primary), (low, ".3f", "low"), (high, ".3f", "high"))
    ]
    return Cell((shown[0], " [", shown[1], COMMA, shown[2], "]"))


def detail_of(name: str, result: Result) -> Detail | None:
    """Return the figures by class and the changed rows of a result; None for a regression or without predictions."""
    from sklearn.metrics import confusion_matrix

    both = predictions_of(result)
    if both is None or both[0].references.dtype.kind == "f":
        return None
    names = result.get("labels") or [str(label) for label in range(both[0].logits.shape[1])]
    found, reference = (_apart(one, len(names)) for one in both)
    source = str(result["file"])
    labels = np.arange(len(names))
    one_each = found.references.ndim == 1  # rows of several labels have no confusion matrix
    counts = confusion_matrix(found.references, found.predicted, labels=labels) if one_each else None
    with_label = found.references.sum(axis=0) if counts is None else counts.sum(axis=1)
    figures = [_per_class(one, labels) for one in (reference, found)]
    rows = []
    for label, class_name in enumerate(names):
        cells = [
            Cell(tuple(_pair(figures[0][kind][label], figures[1][kind][label], key, source)))
            for kind, key in enumerate(("precision", "recall", "f1"))
        ]
        matrix = None
        if counts is not None and len(names) <= MATRIX_CLASSES:
            matrix = [Number(f"{count:,}", count, "confusion", source) for count in counts[label].tolist()]
        rows.append(ClassRow(class_name, int(with_label[label]), cells, matrix))
    changed = result["agreement"].get("changed_rows") or []
    return Detail(name, rows, names, changed, _changed(*both), result)


def _apart(found: Predictions, types: int) -> Predictions:
    """Return predictions of entities as one row per entity, with its type as label; return others unchanged."""
    if found.references.dtype.kind != "i" or found.references.ndim == 1:
        return found
    return Predictions(*entities_apart(found.references, found.predicted, types), found.logits)


def _changed(found: Predictions, reference: Predictions) -> int:
    """Return the number of rows whose predicted labels differ; 0 if predictions are numbers."""
    unchanged = same(found.predicted, reference.predicted)
    return 0 if unchanged is None else int((~unchanged).sum())


def _per_class(found: Predictions, labels: Indices) -> list[list[float]]:
    """Return precision, recall and F1, each a list over the classes. A figure that would be 0 / 0 is 0."""
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(
        found.references, found.predicted, labels=labels, average=None, zero_division=0.0
    )
    return [precision.tolist(), recall.tolist(), f1.tolist()]


def _pair(before: float, after: float, key: str, source: str) -> list[Number | str]:
    """Return the parts of a cell that shows a figure of FP32, an arrow, and the same figure of the result."""
    return [
        Number(f"{before:.3f}", before, f"{key} of FP32", source),
        " → ",
        Number(f"{after:.3f}", after, key, source),
    ]
