"""Which device a run uses."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from toolchain.errors import MachineError, UsageError


def choose_device(asked: str, *, cuda: bool) -> str:
    """Return `cpu` or `cuda:N`; `auto` takes the GPU if `cuda` says that the backend has one.

    Raises:
        UsageError: no such device name.
        MachineError: a GPU was asked for and the backend has none.
    """
    if asked == "auto":
        return "cuda:0" if cuda else "cpu"
    if asked == "cpu":
        return asked
    if not re.fullmatch(r"cuda(:\d+)?", asked):
        raise UsageError(f"--device {asked}: unknown. Choose auto, cpu or cuda[:N].")
    if not cuda:
        raise MachineError(f"--device {asked}: no GPU that this backend can use. See `toolchain doctor`.")
    return asked if ":" in asked else f"{asked}:0"


def cpu_threads(root: Path = Path("/")) -> int:
    """Return the number of processors that this process may use, at least 1.

    A container's limit (`docker run --cpus`, a pod's) is none of the processors it may run on but of their time, and
    more threads than that only wait for each other. `root` is where `proc` and `sys` are.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *_granted(root)]))


def _granted(root: Path) -> Iterator[int]:
    """Yield how many processors' time the process's cgroup and each above it grant, rounded up.

    Linux: Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (version 1).
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        own = PurePosixPath(path.lstrip("/"))  # in a container it may be the host's, and is not found below the mount
        for folder in (own, *own.parents):
            match " ".join(_read(mounted / folder / file) for file in files).split():
                case [quota_us, period_us] if quota_us.isdecimal():  # else "max" or -1: no limit
                    yield -(-int(quota_us) // int(period_us))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
