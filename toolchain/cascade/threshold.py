"""Chooses the threshold of a cascade on labelled rows: how sure the first stage must be of a row to answer it.

For each threshold, the hypothesis is tested that the metric drops by more than is allowed. The tests start with the
highest threshold, in an order that is fixed before a label is seen, and end at the first hypothesis that cannot be
rejected. So the chosen threshold is wrong with a probability of at most 1 - confidence, however many are tried
(fixed-sequence testing; Angelopoulos et al., Learn then Test, 2021).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits
from toolchain.data.metrics import Values
from toolchain.errors import GateError
from toolchain.evaluation.compare import FAILS, PASSES, Comparison, compare
from toolchain.evaluation.measure import most_frequent
from toolchain.evaluation.statistics import wilson_ci95
from toolchain.heads.contract import Head
from toolchain.heads.predictions import Predictions
from toolchain.heads.scores import margins
from toolchain.records.cascade import TriedThreshold
from toolchain.runtimes.cascade import passed_on

# Fractions of the rows that the first stage answers, in the order of the search. With finer fractions, the drop would
# change from one to the next by less than the rows can show.
SHARES = tuple(percent / 100 for percent in range(5, 100, 5))


@dataclass(frozen=True)
class Found:
    """The result of the search for a threshold.

    `rest`, bool [rows], says which rows are passed on to the second stage. `cascade` are the cascade's predictions,
    `comparison` compares them with those of the second stage, and `tried` has all thresholds that were tested.
    """

    threshold: float
    rest: NDArray[np.bool_]
    cascade: Predictions
    comparison: Comparison
    tried: list[TriedThreshold]


def search(
    references: Values, small: Logits, big: Logits, head: Head, *, max_drop: float, confidence: float, seed: int
) -> Found:
    """Return the lowest threshold such that it and all higher ones keep the drop within `max_drop` points.

    The upper confidence bound of the drop decides. `references` are the labels as `head.read` returns them, `small` and
    `big` the logits of both stages, float32 [rows, classes].

    Raises:
        GateError: not even the highest threshold passes, because the drop is too large or the rows are too few to tell;
            or the second stage is not better than chance; or the first stage is equally sure of all rows.
    """
    baseline, tried, best = head.predict(references, big), [], None
    _refuse_chance(baseline)
    order = thresholds(margins(small))
    if not order:
        raise GateError(
            "cascade: the first stage is equally sure of all rows, so no threshold can be chosen. Give another first "
            "stage."
        )
    for threshold in order:
        rest = passed_on(small, threshold)
        cascade = head.predict(references, np.where(rest[:, None], big, small))
        found = compare(baseline, cascade, head.task.primary, confidence=confidence, max_drop=max_drop, seed=seed)
        tried.append(_tried(threshold, rest, found))
        if found.verdict != PASSES:
            break
        best = Found(threshold, rest, cascade, found, tried)
    if best is None:
        raise GateError(_refusal(found, tried, max_drop))
    return best


def thresholds(sure: NDArray[np.float32]) -> list[float]:
    """Return a threshold for each fraction in SHARES, from the highest down; `sure` has the margin of each row.

    A threshold lies midway between two neighbouring margins. If these are equal, the fraction has no threshold.
    """
    finite = np.sort(sure[np.isfinite(sure)].astype(np.float64))[::-1]
    counts = [round(share * len(sure)) for share in SHARES]
    steps = [count for count in counts if 0 < count < len(finite) and finite[count - 1] > finite[count]]
    return list(dict.fromkeys(float((finite[count - 1] + finite[count]) / 2) for count in steps))


def _refuse_chance(found: Predictions) -> None:
    """Refuse rows on which the second stage is not clearly better than always predicting the most frequent label."""
    frequent = most_frequent(found)
    assert frequent is not None, "only a head with labels has a most frequent label"
    right = round(frequent["accuracy"] * len(found.references))
    if wilson_ci95(right, len(found.references))[0] <= frequent["share"]:
        raise GateError(
            f"cascade: the second stage is right in {frequent['accuracy']:.1%} of {len(found.references):,} rows, and "
            f"the most frequent label in {frequent['share']:.1%}, so a cascade cannot be judged on these rows. "
            "Check that the label and text columns are the ones the model was trained on, or give more rows."
        )


def _tried(threshold: float, rest: NDArray[np.bool_], found: Comparison) -> TriedThreshold:
    bound = found.bounds_points[1]
    assert found.verdict is not None
    return {
        "threshold": threshold,
        "passed_on": float(rest.mean()),
        "drop_points": found.drop_points,
        "bound_points": bound if math.isfinite(bound) else None,
        "verdict": found.verdict,
    }


def _refusal(found: Comparison, tried: list[TriedThreshold], max_drop: float) -> str:
    share = 1 - tried[0]["passed_on"]
    if found.verdict == FAILS:
        return (
            f"cascade: even if the first stage answers only the {share:.0%} of {found.n:,} rows of which it is surest, "
            f"{found.metric} drops by {found.drop_points:.2f} points, and the limit is {max_drop:g}. "
            "Give a better first stage."
        )
    more = f"about {found.rows_to_tell:,}" if found.rows_to_tell else "more"
    return (
        f"cascade: {found.n:,} rows are too few to tell whether the drop stays within {max_drop:g} points, even if the "
        f"first stage answers only {share:.0%} of them. Give {more} rows with --calib-data, or a larger --max-drop."
    )
