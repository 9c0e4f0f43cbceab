"""Buckets: the shapes that CUDA graphs are captured for. They are few, and near enough that little is padded."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch

# Lengths are rounded up to multiples of it, which suits tensor cores in float16 too.
LENGTH_STEP = 8

# Numbers of rows are rounded up to this many significant bits, which adds at most an eighth.
ROW_BITS = 4


def bucket(rows: int, length: int, *, longest: int | None = None) -> tuple[int, int]:
    """Return the rows and the length, in tokens, of the bucket that holds a batch.

    `longest` is the largest length that the model takes; the bucket is longer only if the batch is.
    """
    step = 1 << max(0, (rows - 1).bit_length() - ROW_BITS)
    wide = -(-length // LENGTH_STEP) * LENGTH_STEP
    return -(-rows // step) * step, max(length, min(wide, longest or wide))


def padded_batch(batch: Batch, rows: int, length: int) -> Batch:
    """Return a batch with added rows and columns of padding; the caller drops the added results."""
    return {name: padded(name, array, rows, length) for name, array in batch.items()}


def padded(name: str, array: NDArray[Any], rows: int, length: int) -> NDArray[Any]:
    """Return one input of a batch with added rows of one token and added columns of padding.

    The mask of an added row begins with 1, because softmax of a row without any token is undefined.
    """
    if array.shape == (rows, length):
        return array
    made = np.zeros((rows, length), array.dtype)
    made[: array.shape[0], : array.shape[1]] = array
    if name == "attention_mask":
        made[array.shape[0] :, 0] = 1
    return made
