"""Hold-out rows: train rows that calibration did not see, on which methods and layers are chosen.

Few rows that a model was trained on lie near its decision boundary, and only those can change their label. So half of
the hold-out rows are those of a larger pool with the smallest margin, and the others are random. Labels are not read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain.checkpoint.tokenize import Tokens
from toolchain.runtimes.batched import logits_of
from toolchain.runtimes.distance import Distance, Logits, distance

# Enough for a stable ranking of graphs, and few enough to evaluate dozens of graphs on them.
ROWS = 512

# A model is surer of rows that it was trained on: on new rows, labels change about twice as often.
SAFETY = 2.0


@dataclass(frozen=True)
class Holdout:
    """Hold-out rows, their FP32 logits, float32 [rows, classes], and the number of rows in the pool."""

    tokens: Tokens
    reference: Logits
    pool: int

    def distance(self, model: ir.Model) -> Distance:
        """Return the distance of a graph's logits on these rows from the FP32 logits."""
        return distance(self.reference, logits_of(model, self.tokens))

    def expected_drop(self, found: Distance) -> float:
        """Return the expected drop of the task's metric, in points (1/100). It is an estimate, not a bound.

        For classes: the share of the pool whose label changed, times SAFETY; rows of the pool that were not evaluated
        count as unchanged, as nearly all of them are. For a regression: the loss of correlation by independent noise,
        half the noise's share of the variance.
        """
        if found.changed is None:
            return float(50 * found.rms**2 / max(float(self.reference.var()), 1e-12))
        return 100 * SAFETY * found.changed * len(self.reference) / self.pool


def choose_holdout(load: Callable[[], ir.Model], pool: Tokens, *, seed: int) -> Holdout:
    """Return ROWS rows of the pool; for classes, half of them have the smallest margin between the two best classes.

    `load` returns a new copy of the FP32 graph.
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
