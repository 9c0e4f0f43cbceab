"""The memory bandwidth of a device, measured by copying and summing large tensors in PyTorch."""

import functools
import importlib.util
import time
from collections.abc import Callable
from typing import Any

from toolchain.base.processors import cpu_threads
from toolchain.base.progress import still

# Size in bytes of the tensor that is copied, by type of device: 128 MiB and 1 GiB. Most caches are smaller, so that the
# bandwidth of memory is measured.
COPIED_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}

# Number of passes. The fastest counts, because a disturbance only makes a pass slower.
PASSES = 8


@functools.cache
def measure_bandwidth(device: str) -> float | None:
    """Return the memory bandwidth of `cpu` or `cuda:N` in bytes/s; None if PyTorch is missing or has no such device.

    The bandwidth is measured once per process. The result is the higher of two bandwidths: that of a copy, which reads
    and writes each byte, and that of a sum, which only reads, as generating a token mostly does.
    """
    if not importlib.util.find_spec("torch"):
        return None
    import torch

    kind = device.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        return None
    torch.set_num_threads(cpu_threads())
    source = torch.ones(COPIED_BYTES[kind] // 4, device=device)
    wait = functools.partial(torch.cuda.synchronize, device) if kind == "cuda" else lambda: None
    with still():
        copy_s, sum_s = (_best(action, wait) for action in (copying(source), source.sum))
    return max(2 * source.nbytes / copy_s, source.nbytes / sum_s)


def copying(source: Any) -> Callable[[], Any]:
    """Return a function that copies a tensor to another tensor on the same device."""
    import torch

    return functools.partial(torch.empty_like(source).copy_, source)


def _best(action: Callable[[], Any], wait: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Call `action` PASSES times; return the shortest time of a call in s. `wait` blocks until the device is idle."""
    times = []
    for _ in range(PASSES):
        wait()
        start = clock()
        action()
        wait()
        times.append(clock() - start)
    return min(times)
