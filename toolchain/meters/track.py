"""What one source gave over time, and joules between two moments of it.

A counter moves in ticks, every 20 to 100 ms on GPUs, so a window that begins and ends anywhere is wrong by up to a tick
at each end: 10 % of a second. Windows here begin and end on ticks, where time and joules are both known.
"""

import itertools
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from toolchain.meters.nvml import Unavailable
from toolchain.meters.sources import Source

RESET, TOO_SHORT, STUCK = "counter_reset", "window_too_short", "counter_stuck"

STILL_S = 1.0
"""A counter that did not move for so long before an edge stood still; the slowest known ticks take 100 ms."""


@dataclass
class Track:
    """Readings of one source: every power, and of a counter those at which it moved."""

    source: Source
    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    tick_s: float | None = None
    """The counter's update period, once `find_tick` has been called."""

    def poll(self, now_s: float) -> None:
        """Read once; a reading that fails is kept as a fault, with its reason."""
        try:
            value = self.source.read()
        except Unavailable as why:
            self.faults.append((now_s, why.reason))
            return
        if not (self.source.is_counter and self.values and value == self.values[-1]):
            self.times_s.append(now_s)
            self.values.append(value)

    @property
    def last_tick_s(self) -> float:
        """When the counter last moved; what it read first is no tick."""
        return self.times_s[-1] if len(self.times_s) > 1 else -np.inf

    def find_tick(self) -> None:
        """Take the median time between the ticks so far as the period; they must have been watched closely."""
        self.tick_s = float(np.median(np.diff(self.times_s[1:]))) if len(self.times_s) > 2 else None

    def joules(self, opened_s: float, closed_s: float) -> float:
        """Return the joules between two moments.

        Of a counter, exact where they are its own ticks, and in between linear within a tick; behind its last one, its
        mean power goes on. Of a power, the trapezoidal integral.

        Raises:
            Unavailable: a reading failed in between, the counter fell or stood still, or there are not two readings.
        """
        for when, reason in self.faults:
            if opened_s <= when <= closed_s:
                raise Unavailable(reason)
        return self._counted(opened_s, closed_s) if self.source.is_counter else self._integral(opened_s, closed_s)

    def _counted(self, opened_s: float, closed_s: float) -> float:
        first, last = (bisect_right(self.times_s, moment) - 1 for moment in (opened_s, closed_s))
        times, values = (series[max(first, 0) : last + 2] for series in (self.times_s, self.values))
        if times[-2:-1] == [closed_s]:
            times, values = times[:-1], values[:-1]  # what comes behind an edge that is a tick is no concern
        if any(later < earlier for earlier, later in itertools.pairwise(values)):
            raise Unavailable(RESET)  # the driver was loaded again, or the GPU was reset
        if first < 1:
            raise Unavailable(TOO_SHORT)
        if max(opened_s - self.times_s[first], closed_s - self.times_s[last]) > STILL_S:
            raise Unavailable(STUCK)
        if last <= first:
            raise Unavailable(TOO_SHORT)
        end_s = min(closed_s, times[-1])
        opened_j, closed_j = np.interp([opened_s, end_s], times, values)
        return float(closed_j - opened_j) * (closed_s - opened_s) / (end_s - opened_s)

    def _integral(self, opened_s: float, closed_s: float) -> float:
        times, watts = np.array(self.times_s), np.array(self.values)
        inside = (times > opened_s) & (times < closed_s)
        if not inside.any() or times[0] > opened_s or times[-1] < closed_s:
            raise Unavailable(TOO_SHORT)
        at = np.concatenate([[opened_s], times[inside], [closed_s]])
        return float(np.trapezoid(np.interp(at, times, watts), at))

    def peak(self, opened_s: float, closed_s: float) -> float | None:
        """Return the largest power read between two moments, in watts; None of a counter."""
        if self.source.is_counter:
            return None
        pairs = zip(self.times_s, self.values, strict=True)
        return max((value for moment, value in pairs if opened_s <= moment <= closed_s), default=None)
