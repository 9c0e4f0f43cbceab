"""Rows of many requests, gathered into batches for the engines that are idle.

A row goes to an engine as soon as one is idle; rows gather only while all are at work. Rows of one batch are of one
length bucket, so that little is padded, and the bucket whose first row has waited longest is next, so that none
starves. Everything here runs on the event loop, in one thread; engines run elsewhere (worker.py) and call back.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from toolchain.checkpoint.tokenize import Tokens
from toolchain.runtimes.distance import Logits
from toolchain.serve.batching.queue import Group, Line, Request
from toolchain.serve.counters import Counters, Times
from toolchain.serve.limits import GRACE_S, HANG_S, Limits
from toolchain.serve.protocol import Reason, RefusedError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What an engine made of a batch: logits [rows, classes] of each group, None of one that it failed on."""

    logits: Sequence[Logits | None]
    input_ns: int
    infer_ns: int
    executions: int
    broken: bool = False
    """Whether the engine will not run again."""


class Engine(Protocol):
    """Runs one batch at a time, outside the event loop."""

    def begin(self, groups: list[Tokens], done: Callable[[Done], object]) -> None:
        """Begin to run groups of rows as one batch; `done` is called on the event loop, once."""


class Batcher:
    """The queue before the engines, bounded in rows; one for each length bucket of `ends`."""

    def __init__(
        self,
        engines: list[Engine],
        *,
        solo: Engine | None = None,
        classes: int,
        ends: tuple[int, ...],
        limits: Limits,
        counters: Counters,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take rows of up to `ends[-1]` tokens for engines that are open; `clock` counts nanoseconds.

        `solo` is an engine that takes the processors of all others: it runs when they would have nothing to do.
        """
        self._idle, self._engines, self._solo = list(engines), frozenset(engines), solo
        self._lost: set[Engine] = set()
        """Those that failed for good, or that hang: what hangs may end after all."""
        self._running: dict[Engine, tuple[list[Group], int]] = {}
        """What each engine is at, and until when it may be."""
        self._line, self._numbers = Line(ends, limits), itertools.count()
        self._classes, self._limits = classes, limits
        self._counters, self._clock = counters, clock
        self._coming = 0  # rows that are made tokens of
        self._scheduled = self._closing = False
        self._earliest_ns: float = math.inf  # nothing is over before
        self._alarm: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()

    @property
    def broken(self) -> bool:
        """Whether no engine is left that runs."""
        return self._lost >= self._engines

    @contextmanager
    def coming(self, rows: int) -> Iterator[None]:
        """Keep room for rows while they are made tokens of.

        Raises:
            RefusedError: there is none (UNAVAILABLE).
        """
        self._check_room(rows)
        self._coming += rows
        try:
            yield
        finally:
            self._coming -= rows

    async def submit(
        self, tokens: Tokens, *, timeout_us: int = 0, arrived_ns: int | None = None
    ) -> tuple[Logits, Times]:
        """Return the logits of one request's rows, float32 [rows, classes], and where their time went.

        A request may wait for less than the default time, counted from `arrived_ns` or from now, not for more; 0 is
        the default.

        Raises:
            RefusedError: the queue is full or the time is over (UNAVAILABLE), or the engine failed on it (INTERNAL).
        """
        self._check_room(len(tokens))
        request = self._enqueue(tokens, timeout_us, arrived_ns)
        try:
            return await request.answer, request.times
        finally:
            if request.waiting:  # the caller gave up
                self._forget({request})

    async def close(self) -> None:
        """Take nothing more and return when all that was taken is answered, or the time for it is over.

        An engine that hangs is left alone then: nothing can end it but the end of the process.
        """
        self._closing = True
        self._note_quiet()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), self._limits.timeout_s + GRACE_S)

    def expire(self) -> None:
        """Refuse the requests that have waited for their whole time, and give up engines that hang."""
        now = self._clock()
        if now < self._earliest_ns:
            return
        for engine in [engine for engine, (_, end_ns) in self._running.items() if end_ns <= now]:
            groups, _ = self._running.pop(engine)
            log.error("an engine has been at one batch for %g s: it gets no more unless it ends that", HANG_S)
            self._lose(engine)
            self._refuse({request for request, _ in groups}, _engine_is_gone())
        waiting = self._line.requests()
        late = {request for request in waiting if request.deadline_ns <= now}
        self._refuse(late, RefusedError(Reason.UNAVAILABLE, "Request timeout expired"))
        ends = [*(request.deadline_ns for request in waiting - late), *(end for _, end in self._running.values())]
        self._earliest_ns = min(ends, default=math.inf)
        self._note_quiet()

    def _lose(self, engine: Engine) -> None:
        self._lost.add(engine)
        if self.broken:
            self._refuse(self._line.requests(), _engine_is_gone())

    def _check_room(self, rows: int) -> None:
        if self._closing:
            raise RefusedError(Reason.UNAVAILABLE, "Server is stopping, no new inference requests are accepted")
        if self.broken:
            raise _engine_is_gone()
        if self._line.rows + self._coming + rows > self._limits.max_queue:
            raise RefusedError(Reason.UNAVAILABLE, "Exceeds maximum queue size")

    def _enqueue(self, tokens: Tokens, timeout_us: int, arrived_ns: int | None) -> Request:
        loop, now, rows = asyncio.get_running_loop(), self._clock(), len(tokens)
        longest_us = round(self._limits.timeout_s * 1e6)
        deadline = (now if arrived_ns is None else arrived_ns) + 1000 * min(timeout_us or longest_us, longest_us)
        logits = np.empty((rows, self._classes), np.float32)
        request = Request(tokens, loop.create_future(), next(self._numbers), now, deadline, rows, rows, logits)
        self._line.join(request)
        self._counters.pending += 1
        self._earliest_ns = min(self._earliest_ns, deadline)
        if not self._scheduled:  # behind all that has arrived by now, so that it runs together
            self._scheduled = True
            loop.call_soon(self._dispatch)
        return request

    def _dispatch(self) -> None:
        """Give batches to the engines that are idle, while there are rows."""
        self._scheduled = False
        self.expire()
        while self._idle and self._line.rows:
            engine, share = self._next()
            groups, now = self._line.next_batch(share), self._clock()
            for request, _ in groups:
                self._counters.pending -= not request.waiting
                request.times.queue_ns = request.times.queue_ns or now - request.submitted_ns  # its first rows'
            end_ns = now + round(HANG_S * 1e9)
            self._running[engine] = groups, end_ns
            self._earliest_ns = min(self._earliest_ns, end_ns)
            engine.begin([request.part(rows) for request, rows in groups], partial(self._finish, engine, groups))
        self._set_alarm()

    def _next(self) -> tuple[Engine, int]:
        """Return the engine that is next, and how many rows it may take: those that are idle share what waits."""
        rows, idle = self._line.rows, len(self._idle)
        if self._solo and self._solo not in self._lost and not self._running and rows < idle:
            return self._solo, rows
        return self._idle.pop(), math.ceil(rows / idle)

    def _finish(self, engine: Engine, groups: list[Group], done: Done) -> None:
        """Take the engine's next batch first, so that it runs while the answers of this one are written."""
        if self._running.pop(engine, None) is None:  # it was given up; the machine may have stood still, not the engine
            self._lost.discard(engine)
        self._counters.executions += done.executions
        if done.broken:
            log.error("an engine fails on what it could run before: it gets no more")
            self._lose(engine)
        elif engine is not self._solo:
            self._idle.append(engine)
        self._dispatch()
        for (request, rows), logits in zip(groups, done.logits, strict=True):
            self._answer(request, rows, logits, done)
        self._note_quiet()

    def _answer(self, request: Request, rows: list[int], logits: Logits | None, done: Done) -> None:
        if request.answer.done():  # cancelled, or another of its rows failed
            return
        if logits is None:
            self._refuse({request}, RefusedError(Reason.INTERNAL, "The model failed on this request"))
            return
        if len(rows) == len(request.tokens):
            request.logits = logits
        else:
            request.logits[rows] = logits
        request.left -= len(rows)
        request.times.input_ns += done.input_ns
        request.times.infer_ns += done.infer_ns
        if not request.left:
            request.answer.set_result(request.logits)

    def _refuse(self, requests: set[Request], error: RefusedError) -> None:
        self._forget(requests)
        for request in requests:
            if not request.answer.done():
                request.answer.set_exception(RefusedError(error.reason, str(error)))  # each its own traceback

    def _forget(self, requests: set[Request]) -> None:
        """Take the rows of requests out of the line."""
        if waiting := {request for request in requests if request.waiting}:
            self._line.leave(waiting)
            self._counters.pending -= len(waiting)
            self._note_quiet()

    def _set_alarm(self) -> None:
        """See to it that nothing takes longer than it may, even if no engine becomes idle."""
        if self._alarm:
            self._alarm.cancel()
            self._alarm = None
        if self._line.rows or self._running:
            seconds = max(0.0, (self._earliest_ns - self._clock()) / 1e9)
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._dispatch)

    def _note_quiet(self) -> None:
        if self._closing and not self._line.rows and not self._running:
            self._quiet.set()


def _engine_is_gone() -> RefusedError:
    return RefusedError(Reason.UNAVAILABLE, "The model's engine has failed and is not available")
