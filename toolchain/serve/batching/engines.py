"""The engines that serve a bundle: how many run side by side, and how many threads each uses."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toolchain.base.processors import cpu_threads
from toolchain.base.tensors import Infer
from toolchain.evaluation.target import Target
from toolchain.graph import data_file
from toolchain.recipe.tables import BACKENDS
from toolchain.runtimes import open_runtime

Open = Callable[[], AbstractContextManager[Infer]]

# Size of a graph, in bytes, below which an engine has one thread. Such a graph has so little work that a second thread
# takes more time to wake than it saves.
SMALL_BYTES = 8 << 20

# Most engines that run side by side on a CPU by default. With more engines, each would have too few processors.
MAX_INSTANCES = 4

# Most positions of one batch on a CPU, padding included. Larger batches do not raise the throughput of a CPU, but make
# requests wait longer.
CPU_MAX_TOKENS = 256


@dataclass(frozen=True)
class Engines:
    """The functions that open the engines of a service. Each function in `side_by_side` opens one of several engines.

    These engines run at the same time. `solo` opens one more engine, which uses the processors of all the others
    together; it is None if there is no such engine.
    """

    side_by_side: list[Open]
    solo: Open | None = None


def on_cpu(target: Target) -> bool:
    """Return whether the target runs on this machine's processors, in a runtime that several threads can call."""
    return target.device == "cpu" and BACKENDS[target.backend].callers


@contextmanager
def find_engines(target: Target, instances: int | None) -> Iterator[Engines]:
    """Yield the engines for a target.

    `instances` is the number of engines that run side by side. None means one on a GPU; on a CPU, it means one for each
    processor, up to MAX_INSTANCES.

    On a CPU, throughput is highest with one engine for each processor, because no thread waits for another; latency is
    lowest with one engine on all processors. So there are engines of both kinds, unless the graph is smaller than
    SMALL_BYTES. The engines that run side by side
    share one open runtime, which several threads may call.

    Raises:
        ToolchainError: the graph cannot be opened.
    """
    opened = partial(open_runtime, target.backend, target.model, **target.choices)
    if not on_cpu(target):
        yield Engines([opened] * (instances or 1))
        return
    assert isinstance(target.model, Path)
    files = [file for file in (target.model, data_file(target.model)) if file.exists()]
    small, processors = sum(file.stat().st_size for file in files) < SMALL_BYTES, cpu_threads()
    count = instances or min(MAX_INSTANCES, processors)
    threads = 1 if small else max(1, processors // count)
    with opened(threads=threads, callers=count, spin=False) as shared:
        solo = partial(opened, threads=processors, spin=False) if processors > threads and not small else None
        yield Engines([lambda: nullcontext(shared)] * count, solo)
