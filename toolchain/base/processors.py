"""The number of processors that this process may use, including the limits of containers."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_threads(root: Path = Path("/")) -> int:
    """Return the number of processors that this process may use, at least 1.

    It is the smaller of the CPU affinity and the cgroup's quota, which limits a container (`docker run --cpus`, a pod).
    The quota limits processor time, so more threads than this only wait for each other. `root` is the folder with
    `proc` and `sys`.

    `joblib.cpu_count` is not used, because it reads the quota of the root cgroup only and misses those of nested ones.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *_cgroup_quotas(root)]))


def _cgroup_quotas(root: Path) -> Iterator[int]:
    """Yield the CPU quota of the process's cgroup and of each of its parent cgroups, in processors, rounded up.

    Cgroups without a quota are skipped.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (version 1).
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        own = PurePosixPath(path.lstrip("/"))  # in a container, this may be a path of the host only
        for folder in (own, *own.parents):
            match " ".join(_read(mounted / folder / file) for file in files).split():
                case [quota_us, period_us] if quota_us.isdecimal():  # otherwise the quota is "max" or -1: no limit
                    yield -(-int(quota_us) // int(period_us))


def _read(path: Path) -> str:
    """Return the text of a file; an empty string if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
