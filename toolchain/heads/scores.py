"""Functions that turn logits into scores. They compute in float64, so that large logits do not overflow."""

import numpy as np

from toolchain.base.tensors import Logits


def margins(logits: Logits) -> Logits:
    """Return the difference between the two highest logits of each row, float32 [rows]."""
    best = np.partition(logits, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def softmax(logits: Logits) -> Logits:
    """Return the softmax over the last axis, float32 [..., labels]."""
    wide = logits.astype(np.float64)
    raised = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: Logits) -> Logits:
    """Return the sigmoid of each number, float32 of the same shape."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700))), np.float32)
