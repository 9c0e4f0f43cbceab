"""Rows held out from calibration, to choose on: those where a small error matters, and some of all the others.

Few of the rows that a model was trained on lie near its decision boundary, and only those can change their label. So
of a larger pool the rows with the smallest margin are taken, and as many at random. Labels are never read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain.checkpoint.tokenize import Tokens
from toolchain.runtimes.batched import logits_of
from toolchain.runtimes.distance import Distance, Logits, distance

ROWS = 512
SAFETY = 2.0
"""A model is surer of rows it was trained on than of others: on new ones labels change about twice as often."""


@dataclass(frozen=True)
class Holdout:
    """Rows, their FP32 logits, float32 [rows, classes], and the size of the pool they stand for."""

    tokens: Tokens
    reference: Logits
    pool: int

    def distance(self, model: ir.Model) -> Distance:
        """Return how far a graph's logits on these rows are from FP32's."""
        return distance(self.reference, logits_of(model, self.tokens))

    def expected_drop(self, found: Distance) -> float:
        """Return the drop to expect of the task's metric, in points: an estimate for choosing, and no proof.

        Classes: the share of the pool whose label changed, times SAFETY; what lies between the hard rows and the
        others is taken to have kept its label, as nearly all of it does. A regression: what the error takes off a
        correlation, half its share of the variance.
        """
        if found.changed is None:
            return float(50 * found.rms**2 / max(float(self.reference.var()), 1e-12))
        return 100 * SAFETY * found.changed * len(self.reference) / self.pool


def choose_holdout(load: Callable[[], ir.Model], pool: Tokens, *, seed: int) -> Holdout:
    """Return ROWS rows of the pool: of classes, half with the smallest margin between the two best.

    `load` gives a new copy of the FP32 graph.
    """
    logits = logits_of(load(), pool)
    count = min(ROWS, len(pool))
    order = np.random.default_rng(seed).permutation(len(pool))
    if logits.shape[1] > 1:
        best = np.sort(logits, axis=1)
        hardest = np.argsort(best[:, -1] - best[:, -2], kind="stable")[: count // 2]
        order = np.concatenate([hardest, order[~np.isin(order, hardest)]])
    rows = np.sort(order[:count])
    return Holdout(pool.take(rows), logits[rows], len(pool))
