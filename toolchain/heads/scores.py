"""Scores of logits, computed in float64 so that large logits do not overflow."""

import numpy as np

from toolchain.tensors import Logits


def softmax(logits: Logits) -> Logits:
    """Return the softmax over the last axis, float32 [..., labels]."""
    wide = logits.astype(np.float64)
    raised = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: Logits) -> Logits:
    """Return the sigmoid of each number, float32 of the same shape."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700))), np.float32)
