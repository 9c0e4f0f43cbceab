"""The threshold of a cascade: how sure the first stage must be, found on labelled rows from the safest down.

Each threshold is a hypothesis, that the cascade drops by more than is allowed, and they are tested in an order that is
fixed before a label is seen, until the first one that cannot be rejected. So the chosen one is wrong with the
probability 1 - confidence at most, however many are tried (fixed-sequence testing; Angelopoulos et al., Learn then
Test, 2021).
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

# Shares of the rows that the first stage answers, in the order of the search. Finer ones would differ by less than the
# rows can show.
SHARES = tuple(percent / 100 for percent in range(5, 100, 5))


@dataclass(frozen=True)
class Found:
    """The chosen threshold, the rows that it passes on, bool [rows], the predictions, and the search."""

    threshold: float
    rest: NDArray[np.bool_]
    cascade: Predictions
    comparison: Comparison
    tried: list[TriedThreshold]


def search(
    references: Values, small: Logits, big: Logits, head: Head, *, max_drop: float, confidence: float, seed: int
) -> Found:
    """Return the lowest threshold whose bound of the drop, and that of each higher one, is within `max_drop`.

    `references` are the labels as `head.read` returns them, `small` and `big` the logits of both stages, float32 [rows,
    classes].

    Raises:
        GateError: not even the highest threshold passes: the drop is too large, or the rows are too few to tell; or
            nothing can be chosen, because the second stage does no better than chance, or the first is always as sure.
    """
    baseline, tried, best = head.predict(references, big), [], None
    _refuse_chance(baseline)
    order = thresholds(margins(small))
    if not order:
        raise GateError(
            "cascade: the first stage is equally sure of all rows, so none can be chosen. Give another first stage."
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
    """Return the thresholds of SHARES, from the highest down, each midway between two different margins."""
    finite = np.sort(sure[np.isfinite(sure)].astype(np.float64))[::-1]
    counts = [round(share * len(sure)) for share in SHARES]
    steps = [count for count in counts if 0 < count < len(finite) and finite[count - 1] > finite[count]]
    return list(dict.fromkeys(float((finite[count - 1] + finite[count]) / 2) for count in steps))


def _refuse_chance(found: Predictions) -> None:
    """Refuse rows whose labels a second stage knows no better than one that always gives the most frequent label."""
    frequent = most_frequent(found)
    assert frequent is not None, "only of a head with labels"
    right = round(frequent["accuracy"] * len(found.references))
    if wilson_ci95(right, len(found.references))[0] <= frequent["share"]:
        raise GateError(
            f"cascade: the second stage is right in {frequent['accuracy']:.1%} of {len(found.references):,} rows, not "
            f"clearly more than the {frequent['share']:.1%} of the most frequent label, so a cascade "
            "cannot be judged on these rows. Check that labels and columns are those of the model, or give more rows."
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
            f"cascade: where the first stage answers the {share:.0%} of {found.n:,} rows of which it is surest, "
            f"{found.metric} drops {found.drop_points:.2f} points, {max_drop:g} are allowed. Give a better first stage."
        )
    more = f"about {found.rows_to_tell:,}" if found.rows_to_tell else "more"
    return (
        f"cascade: cannot tell with {found.n:,} rows whether the drop stays within {max_drop:g} points, not even where "
        f"the first stage answers {share:.0%} of them. Give {more} rows with --calib-data, or a larger --max-drop."
    )
