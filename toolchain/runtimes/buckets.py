"""Shapes that recorded work is kept for: few, so that each is recorded once, and near, so that little is padded."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.tensors import Batch

LENGTH_STEP = 8
"""Lengths end on multiples of it, as tensor cores like them in float16 too."""

ROW_BITS = 4
"""Numbers of rows are rounded up to so many significant bits: an eighth more at most."""


def bucket(rows: int, length: int, *, longest: int | None = None) -> tuple[int, int]:
    """Return the rows and the length of the bucket that holds a batch; no length is beyond `longest`."""
    step = 1 << max(0, (rows - 1).bit_length() - ROW_BITS)
    wide = -(-length // LENGTH_STEP) * LENGTH_STEP
    return -(-rows // step) * step, max(length, min(wide, longest or wide))


def padded_batch(batch: Batch, rows: int, length: int) -> Batch:
    """Return a batch with rows and columns added, whose results are dropped."""
    return {name: padded(name, array, rows, length) for name, array in batch.items()}


def padded(name: str, array: NDArray[Any], rows: int, length: int) -> NDArray[Any]:
    """Return one input of a batch with rows of one token and columns of padding added.

    A mask of an added row begins with 1: a row without any token has no defined softmax.
    """
    if array.shape == (rows, length):
        return array
    made = np.zeros((rows, length), array.dtype)
    made[: array.shape[0], : array.shape[1]] = array
    if name == "attention_mask":
        made[array.shape[0] :, 0] = 1
    return made
