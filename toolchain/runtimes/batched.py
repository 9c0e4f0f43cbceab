"""One pass of a runtime over rows, in batches with little padding.

Texts may be a stream of any length. They are processed in windows of rows: while one window runs, the next one is
tokenized, so that the token ids of at most two windows are in memory. Rows are sorted by length within a window, so
there is almost no padding.
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolchain import graph
from toolchain.base.progress import Advance
from toolchain.base.tensors import Infer, Logits, joined
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Encode, Tokens, batches
from toolchain.data.rows import Text
from toolchain.runtimes.ort import open_ort

if TYPE_CHECKING:
    import onnx_ir as ir

# Largest number of positions per batch, padding included, unless a trial has chosen another number.
DEFAULT_SLOTS = 1024

# Number of rows that are tokenized and sorted by length together: enough that almost no padding is left.
WINDOW_ROWS = 4096


@dataclass(frozen=True)
class Run:
    """The result of one pass over rows: logits, time, and the numbers of tokens, positions and batches computed.

    `logits` are float32 [rows, *row], `lengths` the number of real tokens of each row, int64 [rows], both in the order
    of the rows. `runtime_s` is the time within `infer`. `slots` is the number of positions, padding included. `pairs`
    is the number of pairs of positions in the same row, to which the work of attention is proportional.
    """

    logits: Logits
    lengths: Indices
    runtime_s: float
    slots: int
    pairs: int
    batches: int


def run(infer: Infer, tokens: Tokens, *, max_slots: int = DEFAULT_SLOTS, advance: Advance = lambda rows: None) -> Run:
    """Run every row, sorted by length, in batches of at most `max_slots` positions (padding included).

    `advance` is called after each batch with its number of rows.
    """
    parts, order, runtime_s, slots, pairs = [], [], 0.0, 0, 0
    lengths = tokens.lengths
    for rows in batches(tokens, max_slots=max_slots):
        batch, padded = tokens.batch(rows), int(lengths[rows].max())
        start = time.perf_counter()
        parts.append(infer(batch))
        runtime_s += time.perf_counter() - start
        order.append(rows)
        slots += len(rows) * padded
        pairs += len(rows) * padded**2
        advance(len(rows))
    found = joined(parts)
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
    """Tokenize and run texts, of which there must be at least one. `texts` is read one window of rows at a time.

    `encode` is called in another thread, `infer` only in this one. An error of `encode` is raised here once the windows
    before it have run.
    """
    with ThreadPoolExecutor(1, "tokens") as pool:
        # A list comprehension would keep the tokens of a window until the next window is ready; `map` does not.
        windows = _ahead(pool, encode, texts, window)
        runs = list(map(lambda tokens: run(infer, tokens, max_slots=max_slots, advance=advance), windows))
    return Run(
        joined([one.logits for one in runs]),
        np.concatenate([one.lengths for one in runs]),
        sum(one.runtime_s for one in runs),
        sum(one.slots for one in runs),
        sum(one.pairs for one in runs),
        sum(one.batches for one in runs),
    )


def _ahead(pool: Executor, encode: Encode, texts: Iterable[Text], window: int) -> Iterator[Tokens]:
    """Yield the tokens of each window; while the caller uses a window, `pool` tokenizes the next one."""
    unread = iter(texts)

    def start() -> Future[Tokens] | None:
        rows = list(itertools.islice(unread, window))
        return pool.submit(_prepared, encode, rows) if rows else None

    following = start()
    while current := following:
        following = start()
        yield current.result()


def _prepared(encode: Encode, texts: list[Text]) -> Tokens:
    """Tokenize texts now, and return the tokens: RemoteTexts would be tokenized only when their lengths are read."""
    tokens = encode(texts)
    _ = tokens.lengths
    return tokens


def logits_of(model: "ir.Model", tokens: Tokens) -> Logits:
    """Run a graph in memory on every row with ONNX Runtime on the CPU; return the logits, float32 [rows, classes]."""
    with open_ort(graph.message(model), device="cpu") as infer:
        return run(infer, tokens).logits
