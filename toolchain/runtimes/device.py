"""The device of a run, and the number of processors that it may use."""

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from toolchain.errors import MachineError, UsageError


def choose_device(asked: str, *, cuda: bool) -> str:
    """Return `cpu` or `cuda:N`. `auto` means the first GPU if `cuda`, which says whether the backend has one.

    Raises:
        UsageError: `asked` is not the name of a device.
        MachineError: `asked` is a GPU and the backend has none.
    """
    if asked == "auto":
        return "cuda:0" if cuda else "cpu"
    if asked == "cpu":
        return asked
    if not re.fullmatch(r"cuda(:\d+)?", asked):
        raise UsageError(f"--device {asked}: unknown. Choose auto, cpu or cuda[:N].")
    if not cuda:
        raise MachineError(f"--device {asked}: this backend can use no GPU here. See `toolchain doctor`.")
    return asked if ":" in asked else f"{asked}:0"


def has_cuda_gpu() -> bool:
    """Return whether the CUDA driver has a GPU that this process may use.

    Source: cuInit of cuda.h, which gives 0 unless there is no driver, no GPU, or none in CUDA_VISIBLE_DEVICES.
    """
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


def cpu_threads(root: Path = Path("/")) -> int:
    """Return the number of processors that this process may use, at least 1.

    The limit of a container (`docker run --cpus`, a pod) is a quota of processor time, not of processors; more threads
    than the quota only wait for each other. `root` is the folder that holds `proc` and `sys`.

    `joblib.cpu_count` reads the quota of the root cgroup only, so it misses a limit of a nested cgroup.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *_cgroup_quotas(root)]))


def _cgroup_quotas(root: Path) -> Iterator[int]:
    """Yield the quotas of the process's cgroup and of each one above it, in processors, rounded up.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (version 1).
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        own = PurePosixPath(path.lstrip("/"))  # in a container it may be a path on the host, which the mount lacks
        for folder in (own, *own.parents):
            match " ".join(_read(mounted / folder / file) for file in files).split():
                case [quota_us, period_us] if quota_us.isdecimal():  # otherwise it is "max" or -1, which means no limit
                    yield -(-int(quota_us) // int(period_us))


def _read(path: Path) -> str:
    """Return the text of a file, or nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
