"""What was predicted for rows, and for which of them two predictions are the same."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits
from toolchain.data.metrics import Values


@dataclass(frozen=True)
class Predictions:
    """The prediction and the reference of each row.

    Both are classes, int64 [rows], or whether a row has a label, bool [rows, labels], in the task's order; or numbers,
    float64 [rows]. `logits` are float32 [rows, outputs], in the model's order.
    """

    references: Values
    predicted: Values
    logits: Logits


def same(one: Values, other: Values) -> NDArray[np.bool_] | None:
    """Return whether each row has the same labels in both, bool [rows]; None for numbers, which are no labels."""
    if one.dtype.kind == "f":
        return None
    return np.asarray((one == other).all(axis=tuple(range(1, one.ndim))))
