"""Contention: whether other processes kept this one from its processors while it was timed.

Linux counts for each thread the time that it ran, and the time that it was ready to run and waited for a processor
(`/proc/PID/task/TID/schedstat`, in nanoseconds: Documentation/scheduler/sched-stats.rst of the kernel).
"""

import os
from pathlib import Path

from toolchain.records.result import Contention

# Threads that wait for more than this share of the time in which they could have run make timings unreliable. On an
# idle machine the share is a few hundredths: threads of one process also wait for each other.
BUSY_SHARE = 0.2

_TASKS = Path("/proc/self/task")


class ContentionMeter:
    """The share of the time that the threads of this process waited for a processor, between `start` and `stop`."""

    def __init__(self, tasks: Path = _TASKS) -> None:
        """Read the counters below `tasks`, a folder with one folder for each thread."""
        self._tasks = tasks
        self._before: dict[str, tuple[int, int]] = {}
        self._load: float | None = None

    def start(self) -> None:
        """Read the counters, and the load average before this process adds to it."""
        self._before = _counters(self._tasks)
        self._load = _load_average()

    def stop(self) -> Contention:
        """Return the share since `start`. It is null where the system does not count, or where no thread ran."""
        ran = waited = 0
        for thread, (run_ns, wait_ns) in _counters(self._tasks).items():
            run_before, wait_before = self._before.get(thread, (0, 0))
            ran += run_ns - run_before
            waited += wait_ns - wait_before
        share = waited / (ran + waited) if ran + waited > 0 else None
        return {"waiting_share": share, "load_average": self._load, "busy": (share or 0.0) > BUSY_SHARE}


def _counters(tasks: Path) -> dict[str, tuple[int, int]]:
    """Return for each thread the nanoseconds that it ran and waited; threads that end meanwhile are left out."""
    found = {}
    for file in tasks.glob("*/schedstat"):
        try:
            ran, waited, _ = file.read_text().split()
        except (OSError, ValueError):
            continue
        found[file.parent.name] = int(ran), int(waited)
    return found


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
