"""The predictions for rows, and a comparison of the predictions of two models."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits
from toolchain.data.metrics import Values


@dataclass(frozen=True)
class Predictions:
    """The prediction and the reference of each row, with the logits that the predictions come from.

    Predictions and references are indices of classes, int64 [rows]; flags of labels, bool [rows, labels], in the task's
    order; entities as integers, int64 [rows, words] (tokens.py); or numbers, float64 [rows]. Logits are float32
    [rows, outputs], in the model's order.
    """

    references: Values
    predicted: Values
    logits: Logits


def same(one: Values, other: Values) -> NDArray[np.bool_] | None:
    """Return for each row whether two predictions have the same labels, bool [rows]; None if they are numbers."""
    if one.dtype.kind == "f":
        return None
    return np.asarray((one == other).all(axis=tuple(range(1, one.ndim))))
