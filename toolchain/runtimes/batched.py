"""One pass over rows, in batches without waste.

Of a stream of texts no more than two windows of token ids are alive, however long it is: the one that runs, and the
next, which is tokenised meanwhile. Rows are sorted by length within a window, which leaves next to no padding.
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Encode, Tokens, budget_batches
from toolchain.data.rows import Text
from toolchain.graph import serialised
from toolchain.progress import Advance
from toolchain.runtimes.distance import Logits
from toolchain.runtimes.ort import open_ort
from toolchain.tensors import Infer

DEFAULT_SLOTS = 1024
"""Padded positions a batch where no trial has chosen another number."""

WINDOW_ROWS = 4096


@dataclass(frozen=True)
class Run:
    """What one pass over the rows gave and took: `slots` padded positions, `pairs` of them in the same row.

    `logits` are float32 [rows, classes], `lengths` the rows' real tokens, int64 [rows], both in row order.
    """

    logits: Logits
    lengths: Indices
    runtime_s: float
    slots: int
    pairs: int
    batches: int


def run(infer: Infer, tokens: Tokens, *, max_slots: int = DEFAULT_SLOTS, advance: Advance = lambda rows: None) -> Run:
    """Infer every row in length-sorted batches."""
    parts, order, runtime_s, slots, pairs = [], [], 0.0, 0, 0
    lengths = tokens.lengths
    for rows in budget_batches(lengths, max_slots=max_slots):
        batch, padded = tokens.batch(rows), int(lengths[rows].max())
        start = time.perf_counter()
        parts.append(infer(batch))
        runtime_s += time.perf_counter() - start
        order.append(rows)
        slots += len(rows) * padded
        pairs += len(rows) * padded**2
        advance(len(rows))
    found = np.concatenate(parts)
    logits = np.empty_like(found)
    logits[np.concatenate(order)] = found
    return Run(logits, lengths, runtime_s, slots, pairs, len(order))


def run_texts(
    infer: Infer,
    encode: Encode,
    texts: Iterable[Text],
    *,
    max_slots: int = DEFAULT_SLOTS,
    window: int = WINDOW_ROWS,
    advance: Advance = lambda rows: None,
) -> Run:
    """Infer every text, from one that is read only as it is needed to the logits; one text or more.

    What `encode` raises is raised here, once the windows before are done. `infer` is called in this thread alone.
    """
    with ThreadPoolExecutor(1, "tokens") as pool:
        # Through `map` nothing holds on to the tokens of a window that is done.
        windows = _ahead(pool, encode, texts, window)
        runs = list(map(lambda tokens: run(infer, tokens, max_slots=max_slots, advance=advance), windows))
    return Run(
        np.concatenate([one.logits for one in runs]),
        np.concatenate([one.lengths for one in runs]),
        sum(one.runtime_s for one in runs),
        sum(one.slots for one in runs),
        sum(one.pairs for one in runs),
        sum(one.batches for one in runs),
    )


def _ahead(pool: Executor, encode: Encode, texts: Iterable[Text], window: int) -> Iterator[Tokens]:
    """Yield windows of tokens, each made by the pool while the one before is in use."""
    unread = iter(texts)

    def start() -> Future[Tokens] | None:
        rows = list(itertools.islice(unread, window))
        return pool.submit(_prepared, encode, rows) if rows else None

    coming = start()
    while ready := coming:
        coming = start()
        yield ready.result()


def _prepared(encode: Encode, texts: list[Text]) -> Tokens:
    """Return tokens that are made: those of texts for a server are made when their lengths are asked for."""
    tokens = encode(texts)
    _ = tokens.lengths
    return tokens


def logits_of(model: ir.Model, tokens: Tokens) -> Logits:
    """Return the logits that ONNX Runtime on the CPU gives for a graph in memory."""
    with open_ort(serialised(model), device="cpu") as infer:
        return run(infer, tokens).logits
