"""The engines that serve a bundle: how many run side by side, and what of the machine each has."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toolchain.evaluation.target import Target
from toolchain.runtimes import open_runtime
from toolchain.runtimes.device import cpu_threads
from toolchain.tensors import Infer

Open = Callable[[], AbstractContextManager[Infer]]

SMALL_BYTES = 8 << 20
"""A graph of less has so little to do that waking a second thread costs more than it saves."""
MOST = 4
"""Engines side by side on a CPU unless told: with more, a request that is not alone would have too little of it."""
CPU_TOKENS = 256
"""Positions that run together on a CPU: more are not faster together, and the first would wait for the last."""


@dataclass(frozen=True)
class Engines:
    """How each is opened: those that run `side_by_side`, and one that takes the processors of all of them."""

    side_by_side: list[Open]
    solo: Open | None = None


def on_cpu(target: Target) -> bool:
    """Return whether ONNX Runtime runs it on this machine's processors."""
    return (target.backend, target.device) == ("ort", "cpu")


@contextmanager
def find_engines(target: Target, instances: int | None) -> Iterator[Engines]:
    """Yield the engines of a bundle, `instances` side by side or as many as suit the machine.

    On a CPU a processor each does most work, since none waits for another, and all of them for one request answer it
    soonest: so there are engines for both. Those side by side are one session, which threads may share.

    Raises:
        ToolchainError: the graph cannot be opened.
    """
    opened = partial(open_runtime, target.backend, target.model, **target.choices)
    if not on_cpu(target):
        yield Engines([opened] * (instances or 1))
        return
    assert isinstance(target.model, Path)
    small, processors = target.model.stat().st_size < SMALL_BYTES, cpu_threads()
    count = instances or min(MOST, processors)
    threads = 1 if small else max(1, processors // count)
    with opened(threads=threads, spin=False) as shared:
        solo = partial(opened, threads=processors, spin=False) if processors > threads and not small else None
        yield Engines([lambda: nullcontext(shared)] * count, solo)
