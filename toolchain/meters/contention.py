"""Contention: whether other processes took processor time from this process while it was timed.

Linux counts for each thread the time that it ran, and the time that it was ready to run but waited for a processor
(`/proc/PID/task/TID/schedstat`, in nanoseconds: Documentation/scheduler/sched-stats.rst of the kernel).
"""

import os
from pathlib import Path

from toolchain.records.result import Contention

# Largest fraction of the time in which threads could have run but waited; above it, timings are unreliable. On an idle
# machine, the fraction is a few hundredths, because threads of one process also wait for each other.
BUSY_SHARE = 0.2

_TASKS = Path("/proc/self/task")


class ContentionMeter:
    """Measures how much of their time the threads of this process waited for a processor, from `start` to `stop`."""

    def __init__(self, tasks: Path = _TASKS) -> None:
        """Use the counters below `tasks`, a folder with a subfolder for each thread."""
        self._tasks = tasks
        self._before: dict[str, tuple[int, int]] = {}
        self._load: float | None = None

    def start(self) -> None:
        """Read the counters, and the load average before the timed work adds to it."""
        self._before = _counters(self._tasks)
        self._load = _load_average()

    def stop(self) -> Contention:
        """Return the contention since `start`.

        `waiting_share` is None if the system lacks the counters, or if no thread ran. Contention is `busy` if threads
        waited for more than the fraction BUSY_SHARE of their time.
        """
        ran = waited = 0
        for thread, (run_ns, wait_ns) in _counters(self._tasks).items():
            run_before, wait_before = self._before.get(thread, (0, 0))
            ran += run_ns - run_before
            waited += wait_ns - wait_before
        share = waited / (ran + waited) if ran + waited > 0 else None
        return {"waiting_share": share, "load_average": self._load, "busy": (share or 0.0) > BUSY_SHARE}


def _counters(tasks: Path) -> dict[str, tuple[int, int]]:
    """Return thread id -> nanoseconds that the thread ran, and that it waited. Threads that just ended are left out."""
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
