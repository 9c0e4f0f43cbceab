"""The stages of a cascade in a service: each row has the logits of one of them, and is counted as its row."""

import asyncio

import numpy as np
import pytest

from toolchain.checkpoint.tokenize import Tokens
from toolchain.serve.batching.stages import LONG_TOKENS, Inline, Stages
from toolchain.serve.counters import Counters, Times
from toolchain.serve.protocol import Reason, RefusedError

WHEN = {"timeout_us": 0, "arrived_ns": 5}


def tokens(*rows):
    ones = [[1] * len(row) for row in rows]
    return Tokens({"input_ids": [*rows], "attention_mask": ones}, {"input_ids": 0, "attention_mask": 0})


def small(batch):
    sums = batch["input_ids"].sum(axis=1)
    return np.stack([sums, -sums], axis=1).astype(np.float32)


class Second:
    def __init__(self):
        self.seen = []

    async def run(self, given):
        self.seen.append([*given.columns["input_ids"]])
        rows = len(given)
        return np.tile(np.array([[100.0, 0.0]], np.float32), (rows, 1)), Times(queue_ns=3, infer_ns=7)


def test_only_unsure_rows_wait_for_the_second_stage():
    async def main():
        second, counters = Second(), Counters()
        stages = Stages(Inline(small), 6.0, counters)
        logits, times = await stages.answer(tokens([9], [1, 1], [3], [2]), second.run, **WHEN)
        assert logits.tolist() == [[9, -9], [100, 0], [3, -3], [100, 0]]
        assert (second.seen, times.queue_ns, times.infer_ns > 7) == ([[[1, 1], [2]]], 3, True)
        assert times.stages == ["first", "second", "first", "second"]
        logits, times = await stages.answer(tokens([9]), second.run, **WHEN)
        assert (logits.tolist(), times.stages, len(second.seen)) == ([[9, -9]], ["first"], 1)
        assert counters.stage_rows == {"first": 3, "second": 2}

    asyncio.run(main())


def test_a_refusal_of_either_stage_is_that_of_the_request_and_counts_no_row():
    async def refuses(*_, **__):
        raise RefusedError(Reason.UNAVAILABLE, "Exceeds maximum queue size")

    class Full:
        submit = staticmethod(refuses)

    async def main():
        counters = Counters()
        for stages, second in (
            (Stages(Full(), 6.0, counters), Second().run),
            (Stages(Inline(small), 6.0, counters), refuses),
        ):
            with pytest.raises(RefusedError, match="queue"):
                await stages.answer(tokens([1]), second, **WHEN)
        assert counters.stage_rows == {"first": 0, "second": 0}

    asyncio.run(main())


def test_many_tokens_do_not_block_the_event_loop():
    async def main():
        seen, ended = [], asyncio.Event()

        def slow(batch):
            asyncio.run_coroutine_threadsafe(note(), loop).result()  # would wait for ever on the loop's own thread
            return small(batch)

        async def note():
            seen.append(True)
            ended.set()

        loop = asyncio.get_running_loop()
        logits, _ = await Inline(slow).submit(tokens([1] * (LONG_TOKENS + 1)))
        assert (logits.shape, ended.is_set(), seen) == ((1, 2), True, [True])

    asyncio.run(main())
