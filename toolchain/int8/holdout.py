"""Hold-out rows: train rows that calibration did not see, on which methods and layers are chosen.

Few rows that a model was trained on lie near its decision boundary, and only those can change their label. So half of
the hold-out rows are those of a larger pool with the smallest margin, and the others are random. Labels are not read.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain.base.tensors import Logits
from toolchain.checkpoint.tokenize import Tokens, batches
from toolchain.graph import message
from toolchain.graph.first_token import first_token
from toolchain.heads.contract import Head
from toolchain.heads.distance import Distance
from toolchain.runtimes.batched import logits_of
from toolchain.runtimes.ort import open_ort

# Enough for a stable ranking of graphs, and few enough to evaluate dozens of graphs on them.
ROWS = 512

# Positions per batch, padding included: small batches, after each of which a graph may end.
MAX_SLOTS = 512

# A model is surer of rows that it was trained on: on new rows, labels change about twice as often.
SAFETY = 2.0


@dataclass(frozen=True)
class Holdout:
    """Hold-out rows, their FP32 logits, float32 [rows, classes], the number of rows in the pool, and the head."""

    tokens: Tokens
    reference: Logits
    pool: int
    head: Head

    def distance(self, model: ir.Model) -> Distance:
        """Return the distance of a graph's logits on these rows from the FP32 logits."""
        return self.distance_below(model, math.inf)[0]

    def distance_below(self, model: ir.Model, limit: float) -> tuple[Distance, int]:
        """Return the distance of a graph, and the number of rows that it is the distance over.

        These are all rows, or only the first batches if no errors of the remaining rows could bring the rank over all
        rows down to `limit`. KL divergence and squared difference of a row are never negative, so with k of n rows
        seen, the rank over all is at least sqrt(k / n) of the rank over those k. The shortest rows come first, because
        their errors are about as large as those of long rows, which take more time.
        """
        logits, count = np.zeros_like(self.reference), len(self.tokens)
        seen = np.empty(0, np.int64)
        with open_ort(message(model), device="cpu") as infer:
            plan = batches(self.tokens, max_slots=MAX_SLOTS)
            for rows in sorted(plan, key=lambda rows: int(self.tokens.lengths[rows].max())):
                found_here = infer(self.tokens.batch(rows))
                logits[rows, : found_here.shape[1]] = found_here  # rows of tokens are as long as the batch
                seen = np.concatenate([seen, rows])
                found = self.head.distance(self.reference[seen], logits[seen])
                if len(seen) < count and found.rank * math.sqrt(len(seen) / count) > limit:
                    return found, len(seen)
        return self.head.distance(self.reference, logits), count

    def sample(self, rows: int) -> "Holdout":
        """Return about `rows` of these rows, evenly spaced, as rows of a pool that is smaller by the same factor."""
        kept = np.arange(0, len(self.tokens), max(1, len(self.tokens) // rows))
        pool = self.pool * len(kept) // len(self.tokens)
        return Holdout(self.tokens.take(kept), self.reference[kept], pool, self.head)

    def expected_drop(self, found: Distance) -> float:
        """Return the expected drop of the task's metric, in points (1/100). It is an estimate, not a bound.

        For labels: what changed in the pool (`Head.change`), times SAFETY; rows of the pool that were not evaluated
        count as unchanged, as nearly all of them are. For a regression: the loss of correlation by independent noise,
        half the noise's share of the variance.
        """
        if found.changed is None:
            return float(50 * found.rms**2 / max(float(self.reference.var()), 1e-12))
        return 100 * SAFETY * found.changed * len(self.reference) / self.pool


def choose_holdout(model: ir.Model, pool: Tokens, *, head: Head, seed: int) -> Holdout:
    """Return ROWS rows of the pool, chosen by the logits of the FP32 graph.

    For a head with labels, half of the rows have the smallest margins.
    """
    made = model.clone()
    first_token(made)
    logits = logits_of(made, pool)
    count = min(ROWS, len(pool))
    order = np.random.default_rng(seed).permutation(len(pool))
    if (margins := head.margins(logits)) is not None:
        hardest = np.argsort(margins, kind="stable")[: count // 2]
        order = np.concatenate([hardest, order[~np.isin(order, hardest)]])
    rows = np.sort(order[:count])
    return Holdout(pool.take(rows), logits[rows], len(pool), head)
