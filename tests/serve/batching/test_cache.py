"""The cache of answers, compared with a list of the rows that were requested last."""

import asyncio
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.checkpoint.tokenize import Tokens
from toolchain.serve.batching.cache import Cache, most_bytes, row_keys
from toolchain.serve.counters import Counters, Times
from toolchain.serve.protocol import Reason, RefusedError


def tokens(rows, **types):
    ones = [[1] * len(row) for row in rows]
    return Tokens({"input_ids": rows, "attention_mask": ones, **types}, {})


def expected(rows):
    return np.array([[sum(row), len(row)] for row in rows], np.float32)


class Model:
    """Logits of rows, and the rows of each call."""

    def __init__(self):
        self.seen = []

    async def run(self, given):
        rows = list(given.columns["input_ids"])
        self.seen.append(rows)
        return expected(rows), Times(infer_ns=7)


ROWS = st.lists(st.sampled_from([[1], [2], [1, 2], [2, 1], [3, 3, 3]]), min_size=1, max_size=4)


@given(st.lists(ROWS, max_size=12), st.integers(1, 4))
def test_rows_that_are_kept_are_not_run_and_every_answer_is_right(requests, size):
    async def main():
        model, counters, kept, hits = Model(), Counters(), [], 0
        cache = Cache(size, (2,), counters)
        for rows in requests:
            logits, times = await cache.answer(tokens(rows), model.run)
            np.testing.assert_array_equal(logits, expected(rows))
            missing = [row for row in rows if row not in kept]
            assert not missing or model.seen.pop() == missing
            assert times.infer_ns == 7 * bool(missing)
            hits += len(rows) - len(missing)
            # First the rows that were found are in use again, then those that ran are put behind them.
            for row in [*(row for row in rows if row not in missing), *missing]:
                kept = [*(other for other in kept if other != row), row][-size:]
            assert counters.cache_entries == len(kept)
        total = sum(map(len, requests))
        assert (counters.cache_hits, counters.cache_misses, model.seen) == (hits, total - hits, [])

    asyncio.run(main())


def test_an_answer_is_a_copy_and_a_failure_is_not_kept():
    async def fails(_):
        raise RefusedError(Reason.INTERNAL, "The model failed on this request")

    async def main():
        model = Model()
        cache = Cache(2, (2,), Counters())
        with pytest.raises(RefusedError, match="failed"):
            await cache.answer(tokens([[1]]), fails)
        for _ in range(3):
            logits, _ = await cache.answer(tokens([[1]]), model.run)
            assert logits.tolist() == [[1, 1]]
            logits[:] = 9
        assert model.seen == [[[1]]]

    asyncio.run(main())


def test_a_row_of_tags_has_as_many_rows_of_logits_as_tokens_whatever_it_ran_with():
    async def run(given):
        padded = given.batch(np.arange(len(given)))["input_ids"] if len(given) else None
        return np.stack([padded, -padded], axis=2).astype(np.float32) + (padded == 0)[..., None] * 5, Times()

    async def main():
        cache = Cache(8, (None, 2), Counters())
        given = [tokens([[4], [5, 6, 7]]), tokens([[4], [8, 9]])]
        for one in given:
            one.pad_values.update(input_ids=0, attention_mask=0)
        await cache.answer(given[0], run)
        logits, _ = await cache.answer(given[1], run)
        assert logits.tolist() == [[[4, -4], [0, 0]], [[8, -8], [9, -9]]]

    asyncio.run(main())


def test_the_same_ids_of_other_types_or_in_other_rows_are_other_keys():
    keys = row_keys(tokens([[1, 2], [1], [2]], token_type_ids=[[0, 0], [0], [1]]))
    keys += row_keys(tokens([[1, 2], [2]], token_type_ids=[[0, 1], [0]]))
    assert len(set(keys)) == 5


def test_the_memory_stays_below_the_stated_bound():
    async def main():
        size, length, model = 500, 16, Model()
        cache = Cache(size, (2,), Counters())
        tracemalloc.start()
        for first in range(0, 2 * size * length, length):
            await cache.answer(tokens([list(range(first, first + length))]), model.run)
            model.seen.clear()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size * 4 * length < held <= most_bytes(size, (2,), length, 1)

    asyncio.run(main())
