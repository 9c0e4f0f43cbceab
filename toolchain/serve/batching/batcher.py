"""The batcher: it gathers rows of many requests into batches and gives the batches to idle engines.

A row goes to an engine as soon as one is idle; rows accumulate only while every engine is busy. All rows of a batch
come from one length bucket, which keeps padding small. The next batch comes from the bucket whose first row has waited
longest, so that no bucket starves. Everything here runs on the event loop, in one thread. Engines run in threads of
their own (worker.py) and call back.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from toolchain.base.tensors import Logits, RowShape
from toolchain.checkpoint.tokenize import Tokens
from toolchain.serve.batching.queue import BatchQueue, Group, QueuedRequest
from toolchain.serve.batching.worker import BatchResult, Worker
from toolchain.serve.counters import Counters, Times
from toolchain.serve.limits import ENGINE_TIMEOUT_S, GRACE_S, Limits
from toolchain.serve.protocol import Reason, RefusedError

log = logging.getLogger(__name__)


class Batcher:
    """A bounded queue of rows, and the engines that run them in batches."""

    def __init__(
        self,
        engines: list[Worker],
        *,
        solo: Worker | None = None,
        row: RowShape,
        ends: tuple[int, ...],
        limits: Limits,
        counters: Counters,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Make a batcher for engines that are open.

        Args:
            engines: the engines that run side by side.
            solo: an engine that uses the processors of all `engines` together. It runs a batch when every engine is
                idle and fewer rows are queued than there are engines. None if there is no such engine.
            row: shape of the logits of each row.
            ends: largest length of each bucket, in tokens; rows have up to `ends[-1]` tokens.
            limits: limits on the size of a batch, the size of the queue, and the wait in it.
            counters: executions and pending requests are counted here.
            clock: returns the time in nanoseconds.
        """
        self._idle, self._engines, self._solo = list(engines), frozenset(engines), solo
        # Engines that are broken or hang. An engine that hangs is taken back if its batch ends after all.
        self._failed: set[Worker] = set()
        # The batch of each busy engine, and the time at which the engine counts as hanging.
        self._running: dict[Worker, tuple[list[Group], int]] = {}
        self._queue, self._numbers = BatchQueue(ends, limits), itertools.count()
        self._row, self._limits = row, limits
        self._counters, self._clock = counters, clock
        # Rows whose texts are being tokenised.
        self._reserved = 0
        self._scheduled = self._closing = False
        # The time before which no request and no engine times out.
        self._next_deadline_ns: float = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()

    @property
    def broken(self) -> bool:
        """Whether every engine has failed."""
        return self._failed >= self._engines

    @contextmanager
    def reserve(self, rows: int) -> Iterator[None]:
        """Reserve capacity of the queue for `rows` rows while they are tokenised.

        Raises:
            RefusedError: the queue is full, the service is stopping, or every engine has failed (UNAVAILABLE).
        """
        self._check_capacity(rows)
        self._reserved += rows
        try:
            yield
        finally:
            self._reserved -= rows

    async def submit(
        self, tokens: Tokens, *, timeout_us: int = 0, arrived_ns: int | None = None
    ) -> tuple[Logits, Times]:
        """Run the rows of a request, and return their logits, float32 [rows, *row], and how long each phase took.

        `timeout_us` is the longest wait in the queue, in microseconds, if that is less than `limits.timeout_s`; 0 means
        `limits.timeout_s`. The wait starts at `arrived_ns` on the batcher's clock, or now if `arrived_ns` is None.

        Raises:
            RefusedError: the queue is full, the request timed out, the service is stopping, or every engine has failed
                (UNAVAILABLE); or the engine failed on this request (INTERNAL).
        """
        self._check_capacity(len(tokens))
        request = self._enqueue(tokens, timeout_us, arrived_ns)
        try:
            return await request.result, request.times
        finally:
            if request.queued:  # the caller was cancelled
                self._dequeue({request})

    async def close(self) -> None:
        """Refuse new requests, and return when every accepted request is answered.

        Return after `limits.timeout_s` plus GRACE_S seconds at the latest. An engine that still hangs then keeps its
        thread, which only the end of the process can stop.
        """
        self._closing = True
        self._note_drained()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), self._limits.timeout_s + GRACE_S)

    def expire(self) -> None:
        """Refuse the queued requests whose deadline has passed, and stop using engines that hang.

        An engine hangs if it has run one batch for more than ENGINE_TIMEOUT_S seconds; the requests of the batch are
        refused.
        """
        now = self._clock()
        if now < self._next_deadline_ns:
            return
        for engine in [engine for engine, (_, end_ns) in self._running.items() if end_ns <= now]:
            groups, _ = self._running.pop(engine)
            log.error(
                "an engine has run one batch for more than %g s: it gets no more batches unless it finishes this one. "
                "If it does not, restart the service.",
                ENGINE_TIMEOUT_S,
            )
            self._give_up(engine)
            self._refuse({request for request, _ in groups}, _no_engine())
        queued = self._queue.requests()
        late = {request for request in queued if request.deadline_ns <= now}
        self._refuse(late, RefusedError(Reason.UNAVAILABLE, "Request timeout expired"))
        ends = [*(request.deadline_ns for request in queued - late), *(end for _, end in self._running.values())]
        self._next_deadline_ns = min(ends, default=math.inf)
        self._note_drained()

    def _give_up(self, engine: Worker) -> None:
        self._failed.add(engine)
        if self.broken:
            self._refuse(self._queue.requests(), _no_engine())

    def _check_capacity(self, rows: int) -> None:
        if self._closing:
            raise RefusedError(Reason.UNAVAILABLE, "Server is stopping, no new inference requests are accepted")
        if self.broken:
            raise _no_engine()
        if self._queue.rows + self._reserved + rows > self._limits.max_queue:
            raise RefusedError(Reason.UNAVAILABLE, "Exceeds maximum queue size")

    def _enqueue(self, tokens: Tokens, timeout_us: int, arrived_ns: int | None) -> QueuedRequest:
        loop, now, rows = asyncio.get_running_loop(), self._clock(), len(tokens)
        longest_us = round(self._limits.timeout_s * 1e6)
        deadline = (now if arrived_ns is None else arrived_ns) + 1000 * min(timeout_us or longest_us, longest_us)
        longest = int(tokens.lengths.max(initial=0))
        shape = (longest if size is None else size for size in self._row)
        logits = np.zeros((rows, *shape), np.float32)
        request = QueuedRequest(tokens, loop.create_future(), next(self._numbers), now, deadline, rows, rows, logits)
        self._queue.put(request)
        self._counters.pending += 1
        self._next_deadline_ns = min(self._next_deadline_ns, deadline)
        if not self._scheduled:  # dispatch after the requests that have already arrived, so that they share batches
            self._scheduled = True
            loop.call_soon(self._dispatch)
        return request

    def _dispatch(self) -> None:
        """Give batches to idle engines until no rows are queued or all engines are busy."""
        self._scheduled = False
        self.expire()
        while self._idle and self._queue.rows:
            engine, share = self._next_engine()
            groups, now = self._queue.take_batch(share), self._clock()
            for request, _ in groups:
                self._counters.pending -= not request.queued
                # The wait of a request ends with its first batch.
                request.times.queue_ns = request.times.queue_ns or now - request.submitted_ns
            end_ns = now + round(ENGINE_TIMEOUT_S * 1e9)
            self._running[engine] = groups, end_ns
            self._next_deadline_ns = min(self._next_deadline_ns, end_ns)
            engine.begin([request.select(rows) for request, rows in groups], partial(self._finish, engine, groups))
        self._set_timer()

    def _next_engine(self) -> tuple[Worker, int]:
        """Return the engine for the next batch, and the most rows that this batch may have.

        That number divides the queued rows evenly among the idle engines.
        """
        rows, idle = self._queue.rows, len(self._idle)
        if self._solo and self._solo not in self._failed and not self._running and rows < idle:
            return self._solo, rows
        return self._idle.pop(), math.ceil(rows / idle)

    def _finish(self, engine: Worker, groups: list[Group], result: BatchResult) -> None:
        """Give an engine its next batch, then complete the requests of the batch that it has finished.

        In this order, the engine runs while the event loop completes requests.
        """
        # `expire` has given this engine up, perhaps only because the whole machine was paused.
        if self._running.pop(engine, None) is None:
            self._failed.discard(engine)
        self._counters.executions += result.executions
        if result.broken:
            log.error(
                "an engine failed on its warm-up batch, although it ran this batch at the start: it gets no more "
                "batches. Restart the service to use it again."
            )
            self._give_up(engine)
        elif engine is not self._solo:
            self._idle.append(engine)
        self._dispatch()
        for (request, rows), logits in zip(groups, result.logits, strict=True):
            self._complete(request, rows, logits, result)
        self._note_drained()

    def _complete(self, request: QueuedRequest, rows: list[int], logits: Logits | None, result: BatchResult) -> None:
        """Store the logits of some rows of a request, and set its result when it has the logits of all rows.

        `logits` is None if the engine failed on these rows; the whole request is then refused.
        """
        if request.result.done():  # the request was cancelled, or another of its rows failed
            return
        if logits is None:
            self._refuse({request}, RefusedError(Reason.INTERNAL, "The model failed on this request"))
            return
        if len(rows) == len(request.tokens):
            request.logits = logits
        else:
            sizes = zip(request.logits.shape[1:], logits.shape[1:], strict=True)
            part = (slice(None), *(slice(min(pair)) for pair in sizes))  # batches have different padded lengths
            request.logits[part][rows] = logits[part]
        request.unfinished -= len(rows)
        request.times.input_ns += result.input_ns
        request.times.infer_ns += result.infer_ns
        if not request.unfinished:
            request.result.set_result(request.logits)

    def _refuse(self, requests: set[QueuedRequest], error: RefusedError) -> None:
        self._dequeue(requests)
        for request in requests:
            if not request.result.done():
                request.result.set_exception(RefusedError(error.reason, str(error)))  # each error has its own traceback

    def _dequeue(self, requests: set[QueuedRequest]) -> None:
        """Remove the rows of these requests that are still queued."""
        if queued := {request for request in requests if request.queued}:
            self._queue.remove(queued)
            self._counters.pending -= len(queued)
            self._note_drained()

    def _set_timer(self) -> None:
        """Schedule `_dispatch` for the next deadline, in case no engine finishes a batch before it."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._queue.rows or self._running:
            seconds = max(0.0, (self._next_deadline_ns - self._clock()) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._dispatch)

    def _note_drained(self) -> None:
        if self._closing and not self._queue.rows and not self._running:
            self._drained.set()


def _no_engine() -> RefusedError:
    return RefusedError(Reason.UNAVAILABLE, "The model's engine has failed and is not available")
