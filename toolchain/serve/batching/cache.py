"""The cache of the service: the logits of rows that the engines ran before.

Its keys are made of token ids, because the logits depend on nothing else. So two texts with the same token ids share an
entry, and a client that sends these ids shares it too. The cache lives as long as the engines that filled it.
"""

import itertools
from collections import OrderedDict

import numpy as np

from toolchain.base.tensors import Logits, RowShape, joined
from toolchain.checkpoint.tokenize import Tokens
from toolchain.serve.batching.stages import Run
from toolchain.serve.counters import Counters, Times

# Bytes of an entry in addition to its token ids and logits, for the Python and numpy objects and the dictionary.
ENTRY_BYTES = 512


class Cache:
    """A cache of logits with one entry for each row. When it is full, the least recently used entry is dropped.

    Only the event loop uses it, so it has no lock.
    """

    def __init__(self, size: int, row: RowShape, counters: Counters) -> None:
        """Make an empty cache for `size` rows whose logits have the shape `row`."""
        self._size, self._row, self._counters = size, row, counters
        self._entries: OrderedDict[bytes, Logits] = OrderedDict()
        counters.cache_entries = counters.cache_hits = counters.cache_misses = 0

    async def answer(self, tokens: Tokens, run: Run) -> tuple[Logits, Times]:
        """Return the logits of rows, float32 [rows, *row], and how long each phase took.

        `run` is called with the rows that the cache lacks, if there are any; their logits are then stored.

        Raises:
            RefusedError: `run` refuses the rows.
        """
        before, keys = self._counters.clock(), row_keys(tokens)
        found = [self._find(key) for key in keys]
        missing = [row for row, logits in enumerate(found) if logits is None]
        self._counters.count_lookups(len(keys) - len(missing), len(missing), self._counters.clock() - before)
        times = Times()
        if missing:
            every = len(missing) == len(keys)
            ran, times = await run(tokens if every else tokens.take(np.array(missing)))
            for row, logits in zip(missing, ran, strict=True):
                found[row] = self._keep(keys[row], logits[self._own(int(tokens.lengths[row]))].copy())
            if every:
                return ran, times
            if times.stages is not None:
                known = dict(zip(missing, times.stages, strict=True))
                times.stages = [known.get(row, "") for row in range(len(keys))]
        return joined([logits[None] for logits in found if logits is not None]), times

    def _find(self, key: bytes) -> Logits | None:
        logits = self._entries.get(key)
        if logits is not None:
            self._entries.move_to_end(key)
        return logits

    def _keep(self, key: bytes, logits: Logits) -> Logits:
        self._entries[key] = logits
        # If another request has added the same row meanwhile, the assignment above keeps the position of its entry.
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
        self._counters.cache_entries = len(self._entries)
        return logits

    def _own(self, length: int) -> tuple[slice, ...]:
        """Return the slices that select the logits of a row's own tokens, without those of padded positions.

        `length` is the row's number of tokens. Logits without an axis of tokens are selected whole.
        """
        return tuple(slice(length if size is None else size) for size in self._row)


def row_keys(tokens: Tokens) -> list[bytes]:
    """Return the cache key of each row: the bytes of its token ids, and of any other token inputs.

    The attention mask is not part of the key, because it is 1 for every token of a row without padding. Each input has
    one int32 value for each token, so two different rows never have the same key.
    """
    columns = [tokens.columns[name].values for name in sorted(tokens.columns) if name != "attention_mask"]
    starts = tokens.columns["input_ids"].starts.tolist()
    return [b"".join(values[start:end].tobytes() for values in columns) for start, end in itertools.pairwise(starts)]


def most_bytes(size: int, row: RowShape, max_length: int, columns: int) -> int:
    """Return an upper bound of the memory of a cache, in bytes.

    The cache has `size` rows of up to `max_length` tokens, each with `columns` token inputs.
    """
    numbers = int(np.prod([max_length if one is None else one for one in row]))
    return size * (4 * (numbers + max_length * columns) + ENTRY_BYTES)
