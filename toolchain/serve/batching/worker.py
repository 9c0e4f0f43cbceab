"""A thread that owns an engine: it opens it, warms it up, runs one batch at a time and closes it.

A CUDA context belongs to the thread that made it, so all of that happens in one.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from toolchain.checkpoint.ragged import Ragged
from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import InputError
from toolchain.runtimes.distance import Logits
from toolchain.serve.batching.batcher import Done
from toolchain.tensors import Batch, Infer

log = logging.getLogger(__name__)

CLOSE_S = 10.0

Job = tuple[list[Tokens], Callable[[Done], object]]


class Worker:
    """An engine in a thread of its own; made on the event loop that it calls back on."""

    def __init__(
        self, open_engine: Callable[[], AbstractContextManager[Infer]], warm_up: list[Batch], *, classes: int
    ) -> None:
        """Begin to open an engine and to run `warm_up` on it; the first of these batches is what it must always run.

        It must give so many logits a row.
        """
        self._classes = classes
        self._loop = asyncio.get_running_loop()
        self._open_engine, self._warm_up = open_engine, warm_up
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    async def opened(self) -> None:
        """Return when the engine is warm.

        Raises:
            Exception: what came up while it was opened.
        """
        await self._opened

    def begin(self, groups: list[Tokens], done: Callable[[Done], object]) -> None:
        """See Engine in batcher.py."""
        self._jobs.put((groups, done))

    async def close(self) -> None:
        """Close the engine, unless it hangs in a batch."""
        self._jobs.put(None)
        await asyncio.wait([self._closed], timeout=CLOSE_S)

    def _work(self) -> None:
        try:
            with self._open_engine() as infer:
                for batch in reversed(self._warm_up):  # the largest first, so that no arena grows later
                    found = _checked(infer, batch)
                    if found.shape != (len(batch["input_ids"]), self._classes):
                        raise InputError(
                            f"the engine gives logits {list(found.shape)} for {len(batch['input_ids'])} rows, and the "
                            f"model has {self._classes} labels. Build the bundle again."
                        )
                self._tell(self._opened, None)
                while job := self._jobs.get():
                    groups, done = job
                    self._call(done, run(infer, groups, probe=self._warm_up[0]))
        except BaseException as error:
            if self._opened.done():
                log.exception("an engine could not be closed")
            self._tell(self._opened, error)
        self._tell(self._closed, None)

    def _tell(self, future: "asyncio.Future[None]", error: BaseException | None) -> None:
        def settle() -> None:
            if not future.done():
                future.set_exception(error) if error else future.set_result(None)

        self._call(settle)

    def _call(self, function: Callable[..., object], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(function, *values)


def run(infer: Infer, groups: list[Tokens], *, probe: Batch) -> Done:
    """Run groups of rows as one batch; where that fails, each by itself, so that only the guilty ones fail.

    An engine that fails on a single group, and then on `probe` too, which it has run before, is broken.
    """
    start = ready = time.monotonic_ns()
    try:
        batch = joined(groups).batch(np.arange(sum(map(len, groups))))
        ready = time.monotonic_ns()
        logits = _checked(infer, batch)
    except Exception as error:
        log.warning("a batch of %d requests failed: %s: %s", len(groups), type(error).__name__, error)
        return _each(infer, groups, probe) if len(groups) > 1 else Done([None], 0, 0, 0, _fails(infer, probe))
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return Done(np.split(logits, ends), ready - start, time.monotonic_ns() - ready, 1)


def _each(infer: Infer, groups: list[Tokens], probe: Batch) -> Done:
    done: list[Done] = []
    for group in groups:
        if done and done[-1].broken:
            break
        done.append(run(infer, [group], probe=probe))
    found = [one.logits[0] for one in done]
    lost = [None] * (len(groups) - len(found))
    input_ns, infer_ns = sum(one.input_ns for one in done), sum(one.infer_ns for one in done)
    return Done([*found, *lost], input_ns, infer_ns, sum(one.executions for one in done), done[-1].broken)


def joined(groups: list[Tokens]) -> Tokens:
    """Return the rows of several requests as one."""
    if len(groups) == 1:
        return groups[0]
    columns = {name: Ragged.joined([group.columns[name] for group in groups]) for name in groups[0].columns}
    return Tokens(columns, groups[0].pad_values)


def _checked(infer: Infer, batch: Batch) -> Logits:
    logits = infer(batch)
    if not np.isfinite(logits).all():
        raise InputError("the model gives logits that are not finite. Try another precision.")
    return logits


def _fails(infer: Infer, probe: Batch) -> bool:
    try:
        _checked(infer, probe)
    except Exception:
        return True
    return False
