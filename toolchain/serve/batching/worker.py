"""The thread that owns an engine: it opens the engine, warms it up, runs one batch at a time and closes the engine.

All of this happens in one thread, because a CUDA context belongs to the thread that made it.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from toolchain.base.tensors import Batch, Infer, Logits, RowShape, is_of
from toolchain.checkpoint.ragged import Ragged
from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import InputError

log = logging.getLogger(__name__)

# Longest wait for an engine to close, in seconds. If the engine hangs in a batch, its thread is left behind. It is a
# daemon thread, so the process can still end.
CLOSE_S = 10.0

# The groups of a batch, and the function that is called with the result of the batch.
BatchJob = tuple[list[Tokens], Callable[["BatchResult"], object]]


@dataclass(frozen=True)
class BatchResult:
    """The outcome of running one batch on one engine."""

    # Logits of each group, float32 [rows, *row]; None for a group on which the engine failed.
    logits: Sequence[Logits | None]
    # Time to build the padded batch.
    input_ns: int
    # Time in the engine.
    infer_ns: int
    # Number of successful runs of the engine: more than one if the batch failed and its groups were run one by one.
    executions: int
    # True if the engine cannot run any more.
    broken: bool = False


class Worker:
    """An engine in a thread of its own. Results are passed to callbacks on the event loop that created the worker."""

    def __init__(
        self, open_engine: Callable[[], AbstractContextManager[Infer]], warm_up: list[Batch], *, row: RowShape
    ) -> None:
        """Start a thread that opens an engine and runs the warm-up batches on it.

        Args:
            open_engine: opens the engine, in the thread.
            warm_up: batches, smallest first. The first also serves as a probe: an engine that fails on it is broken.
            row: shape of the logits that the engine must return for each row.
        """
        self._row = row
        self._loop = asyncio.get_running_loop()
        self._open_engine, self._warm_up = open_engine, warm_up
        self._jobs: queue.SimpleQueue[BatchJob | None] = queue.SimpleQueue()
        # Done when the engine has run its warm-up batches. If that fails, the future has the exception.
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    def begin(self, groups: list[Tokens], on_done: Callable[[BatchResult], object]) -> None:
        """Start running groups of rows as one batch. A group has the rows of one request.

        When the batch has run, `on_done` is called once with its result, on the event loop.
        """
        self._jobs.put((groups, on_done))

    async def close(self) -> None:
        """Close the engine. Return after at most CLOSE_S seconds, even if the engine hangs in a batch."""
        self._jobs.put(None)
        await asyncio.wait([self._closed], timeout=CLOSE_S)

    def _work(self) -> None:
        try:
            with self._open_engine() as infer:
                for batch in reversed(self._warm_up):  # the largest first, so that no memory arena grows later
                    logits = _finite_logits(infer, batch)
                    if not is_of(logits.shape, len(batch["input_ids"]), self._row):
                        raise InputError(
                            f"the engine returned logits of shape {list(logits.shape)} for {len(batch['input_ids'])} "
                            f"rows, but the last dimension of the model's logits is {self._row[-1]}. "
                            "Build the bundle again."
                        )
                self._settle(self.opened)
                while job := self._jobs.get():
                    groups, on_done = job
                    self._call_on_loop(on_done, run(infer, groups, probe=self._warm_up[0]))
        except BaseException as error:
            if self.opened.done():
                log.exception("an engine could not be closed")
            self._settle(self.opened, error)
        self._settle(self._closed)

    def _settle(self, future: "asyncio.Future[None]", error: BaseException | None = None) -> None:
        def settle() -> None:
            if not future.done():
                future.set_exception(error) if error else future.set_result(None)

        self._call_on_loop(settle)

    def _call_on_loop(self, function: Callable[..., object], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing awaits the call
            self._loop.call_soon_threadsafe(function, *values)


def run(infer: Infer, groups: list[Tokens], *, probe: Batch) -> BatchResult:
    """Run groups of rows as one batch; if that fails, run each group alone, so that only a bad group fails.

    A group has the rows of one request. An engine that fails on a single group is then tried on `probe`, a batch which
    the engine has run before. An engine that fails on `probe` too is broken.
    """
    start = ready = time.monotonic_ns()
    try:
        batch = concatenated(groups).batch(np.arange(sum(map(len, groups))))
        ready = time.monotonic_ns()
        logits = _finite_logits(infer, batch)
    except Exception as error:
        log.warning("a batch of %d requests failed: %s: %s", len(groups), type(error).__name__, error)
        if len(groups) > 1:
            return _run_each(infer, groups, probe)
        return BatchResult([None], 0, 0, 0, broken=_fails(infer, probe))
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return BatchResult(np.split(logits, ends), ready - start, time.monotonic_ns() - ready, 1)


def _run_each(infer: Infer, groups: list[Tokens], probe: Batch) -> BatchResult:
    """Run each group as a batch of its own, and return the results as one.

    If the engine turns out to be broken, the remaining groups are not run, and their logits are None.
    """
    results: list[BatchResult] = []
    for group in groups:
        if results and results[-1].broken:
            break
        results.append(run(infer, [group], probe=probe))
    logits = [result.logits[0] for result in results]
    return BatchResult(
        [*logits, *[None] * (len(groups) - len(logits))],
        sum(result.input_ns for result in results),
        sum(result.infer_ns for result in results),
        sum(result.executions for result in results),
        results[-1].broken,
    )


def concatenated(groups: list[Tokens]) -> Tokens:
    """Return the rows of all groups in one object, in their order."""
    if len(groups) == 1:
        return groups[0]
    columns = {name: Ragged.joined([group.columns[name] for group in groups]) for name in groups[0].columns}
    return Tokens(columns, groups[0].pad_values, equal_length=groups[0].equal_length)


def _finite_logits(infer: Infer, batch: Batch) -> Logits:
    logits = infer(batch)
    if not np.isfinite(logits).all():
        raise InputError("the model returned logits that are not finite. Build the bundle in another precision.")
    return logits


def _fails(infer: Infer, probe: Batch) -> bool:
    try:
        _finite_logits(infer, probe)
    except Exception:  # an error of the runtime's library, or logits that are not finite
        return True
    return False
