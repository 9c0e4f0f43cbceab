"""The two stages of a cascade in the service.

Rows that the first stage is sure about never enter the queue of the second stage.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np

from toolchain.base.tensors import Infer, Logits
from toolchain.checkpoint.tokenize import Tokens
from toolchain.runtimes.batched import run
from toolchain.runtimes.cascade import passed_on
from toolchain.serve.batching.batcher import Batcher
from toolchain.serve.counters import Counters, Times

# A function that runs rows, and returns their logits, float32 [rows, *row], and how long each phase took.
Run = Callable[[Tokens], Awaitable[tuple[Logits, Times]]]

# The names of the stages in metrics and responses.
FIRST, SECOND = "first", "second"

# A lexical stage runs a request with more tokens than this in a thread, because it would block the event loop.
LONG_TOKENS = 4096


class Inline:
    """A first stage that has no queue: it costs less time than queueing, so it runs rows at once."""

    def __init__(self, infer: Infer) -> None:
        self._infer = infer

    async def submit(
        self, tokens: Tokens, *, timeout_us: int = 0, arrived_ns: int | None = None
    ) -> tuple[Logits, Times]:
        """Run rows, and return their logits and how long each phase took.

        Rows do not wait, so `timeout_us` and `arrived_ns` have no effect.
        """
        start = time.monotonic_ns()
        is_long = len(tokens.columns["input_ids"].values) > LONG_TOKENS
        ran = await asyncio.to_thread(run, self._infer, tokens) if is_long else run(self._infer, tokens)
        return ran.logits, Times(infer_ns=time.monotonic_ns() - start)


class Stages:
    """The first stage of a cascade, the margin below which rows go to the second, and the count of rows by stage.

    The answer of the first stage is final for a row whose margin reaches the threshold.
    """

    def __init__(self, first: Batcher | Inline, threshold: float, counters: Counters) -> None:
        """Make a cascade that counts the rows of each stage in `counters`.

        A row goes to the second stage if its margin in the first stage is below `threshold`.
        """
        self._first, self._threshold = first, threshold
        self._rows = counters.stage_rows = {FIRST: 0, SECOND: 0}

    async def answer(self, tokens: Tokens, second: Run, *, timeout_us: int, arrived_ns: int) -> tuple[Logits, Times]:
        """Return the logits of rows, float32 [rows, classes], and how long each phase took.

        `second` runs the rows that the first stage is unsure about.

        Raises:
            RefusedError: one of the stages refuses the rows.
        """
        logits, times = await self._first.submit(tokens, timeout_us=timeout_us, arrived_ns=arrived_ns)
        rest = np.flatnonzero(passed_on(logits, self._threshold))
        if len(rest):
            found, more = await second(tokens if len(rest) == len(tokens) else tokens.take(rest))
            logits = np.array(logits)
            logits[rest] = found
            times.add(more)
        self._rows[FIRST] += len(tokens) - len(rest)
        self._rows[SECOND] += len(rest)
        passed = set(rest.tolist())
        times.stages = [SECOND if row in passed else FIRST for row in range(len(tokens))]
        return logits, times
