"""Hold-out rows: train rows that calibration did not see. Range methods and layers to quantize are chosen on them.

Few of the rows that a model was trained on lie near its decision boundary, and only those can change their label. So
half of the hold-out rows are the rows with the smallest margins in a larger pool. The other half is random. Labels are
not read.
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

# Number of hold-out rows: enough for a stable ranking of graphs, and few enough to evaluate dozens of graphs.
ROWS = 512

# Positions per batch, padding included. Batches are small, because an evaluation can end early only after a batch.
MAX_SLOTS = 512

# Factor from the drop on hold-out rows to the expected drop on new rows. A model is more confident on rows that it was
# trained on: on new rows, labels change about twice as often.
SAFETY = 2.0


@dataclass(frozen=True)
class Holdout:
    """Hold-out rows with their FP32 logits, float32 [rows, classes].

    `pool` is the number of rows that they were chosen from.
    """

    tokens: Tokens
    reference: Logits
    pool: int
    head: Head

    def distance(self, model: ir.Model) -> Distance:
        """Return the distance of a graph's logits on these rows from the FP32 logits."""
        return self.distance_below(model, math.inf)[0]

    def distance_below(self, model: ir.Model, limit: float) -> tuple[Distance, int]:
        """Return the distance of a graph's logits from the FP32 logits, and the number of rows that were evaluated.

        The evaluation ends early, after a batch, if the rank over all rows will exceed `limit` whatever the remaining
        rows give: KL divergence and squared difference of a row are never negative, so the rank is at least what it
        would be if the remaining rows gave 0. The shortest rows are evaluated first: they take the least time, and
        their errors are about as large as those of long rows.
        """
        logits, count = np.zeros_like(self.reference), len(self.tokens)
        seen = np.empty(0, np.int64)
        kl, square = 0.0, 0.0  # sums over the rows seen so far, divided by the number of all rows
        with open_ort(message(model), device="cpu") as infer:
            plan = batches(self.tokens, max_slots=MAX_SLOTS)
            for rows in sorted(plan, key=lambda rows: int(self.tokens.lengths[rows].max())):
                found_here = infer(self.tokens.batch(rows))
                # A token classifier returns logits for the positions of the batch only, which may be fewer.
                logits[rows, : found_here.shape[1]] = found_here
                seen = np.concatenate([seen, rows])
                part = self.head.distance(self.reference[rows], logits[rows])
                kl += (part.kl or 0.0) * len(rows) / count
                square += part.rms**2 * len(rows) / count
                least = Distance(None if part.kl is None else kl, math.sqrt(square), None)
                if len(seen) < count and least.rank > limit:
                    break
        seen.sort()  # in row order, so that rounding is that of `Head.distance` on all rows
        return self.head.distance(self.reference[seen], logits[seen]), len(seen)

    def sample(self, rows: int) -> "Holdout":
        """Return about `rows` of these rows, evenly spaced. The number `pool` shrinks by the same factor."""
        kept = np.arange(0, len(self.tokens), max(1, len(self.tokens) // rows))
        pool = self.pool * len(kept) // len(self.tokens)
        return Holdout(self.tokens.take(kept), self.reference[kept], pool, self.head)

    def expected_drop(self, found: Distance) -> float:
        """Return the expected drop of the task's metric, in points (1/100). It is an estimate, not a bound.

        For labels: the change on these rows (`Head.change`), spread over the whole pool, times SAFETY. The other rows
        of the pool count as unchanged, as nearly all of them are. For a regression: the loss of correlation by
        independent noise, which is half the ratio of the noise's variance to the variance of the predictions.
        """
        if found.changed is None:
            return float(50 * found.rms**2 / max(float(self.reference.var()), 1e-12))
        return 100 * SAFETY * found.changed * len(self.reference) / self.pool


def choose_holdout(model: ir.Model, pool: Tokens, *, head: Head, seed: int) -> Holdout:
    """Return ROWS rows of the pool as hold-out rows, with the logits of the FP32 graph `model`.

    For a head with labels, half of the rows are those with the smallest margins, and the others are random.
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
