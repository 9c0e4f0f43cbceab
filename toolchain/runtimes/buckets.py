"""Buckets: the shapes (rows, length) that CUDA graphs are captured for, to which batches are padded.

There are few buckets, and they are close enough to each other that little padding is added.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch

# Lengths are rounded up to multiples of this number of tokens. Multiples of 8 also suit tensor cores in float16.
LENGTH_STEP = 8

# Numbers of rows are rounded up to this many significant bits, which adds at most an eighth of the rows.
ROW_BITS = 4


def bucket(rows: int, length: int, *, longest: int | None = None) -> tuple[int, int]:
    """Return the shape of the smallest bucket that a batch fits into: its number of rows, and its length in tokens.

    `longest` is the largest length that the model takes. The bucket is never longer, unless the batch itself is.
    """
    step = 1 << max(0, (rows - 1).bit_length() - ROW_BITS)
    wide = -(-length // LENGTH_STEP) * LENGTH_STEP
    return -(-rows // step) * step, max(length, min(wide, longest or wide))


def padded_batch(batch: Batch, rows: int, length: int) -> Batch:
    """Return a batch padded to `rows` rows and `length` tokens. The caller drops the results of the added rows."""
    return {name: padded(name, array, rows, length) for name, array in batch.items()}


def padded(name: str, array: NDArray[Any], rows: int, length: int) -> NDArray[Any]:
    """Return the input `name` of a batch, padded with zeros to [rows, length].

    In the attention mask, an added row begins with 1, because the softmax of a row without tokens is undefined.
    """
    if array.shape == (rows, length):
        return array
    made = np.zeros((rows, length), array.dtype)
    made[: array.shape[0], : array.shape[1]] = array
    if name == "attention_mask":
        made[array.shape[0] :, 0] = 1
    return made
