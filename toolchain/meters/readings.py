"""The readings of one energy source over time, and the joules between two moments.

A counter moves in ticks, every 20 to 100 ms on GPUs. The energy of a window that begins and ends at any moment may
therefore be wrong by a tick at each end: 10 % of a window of one second. Windows here begin and end on ticks, at which
both the time and the joules are known.
"""

import itertools
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

import numpy as np

from toolchain.meters.nvml import Unavailable
from toolchain.meters.sources import Source

RESET, TOO_SHORT, STUCK = "counter_reset", "window_too_short", "counter_stuck"

# A counter is stuck if its last tick is more than this many seconds before an edge; known ticks take up to 100 ms.
STILL_S = 1.0


@dataclass
class Readings:
    """The readings of one source. A power sensor's readings are all kept, a counter's only if the counter moved.

    Attributes:
        source: the source.
        times_s: times of the readings, by the meter's clock.
        values: joules of a counter, or watts of a power sensor.
        faults: (time, reason code) of readings that failed.
        tick_s: update period of a counter; None before `find_tick` is called, or if it found too few ticks.
    """

    source: Source
    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    tick_s: float | None = None

    def poll(self, now_s: float) -> None:
        """Read the source once. If the reading fails, add the time and the reason to `faults`."""
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
        """The time of the counter's last tick, -inf before the first tick. The first reading is not a tick."""
        return self.times_s[-1] if len(self.times_s) > 1 else -np.inf

    def find_tick(self) -> None:
        """Set `tick_s` to the median time between the ticks so far.

        The counter must have been read much more often than it ticks.
        """
        self.tick_s = float(np.median(np.diff(self.times_s[1:]))) if len(self.times_s) > 2 else None

    def joules(self, opened_s: float, closed_s: float) -> float:
        """Return the joules between two moments.

        The value of a counter is exact at its ticks. Between two ticks it is interpolated linearly; after the last tick
        it is extrapolated with the mean power. The power of a sensor is integrated by the trapezoidal rule.

        Raises:
            Unavailable: a reading failed between the two moments, the counter fell or did not move, or there are too
                few readings.
        """
        for when, reason in self.faults:
            if opened_s <= when <= closed_s:
                raise Unavailable(reason)
        return self._counted(opened_s, closed_s) if self.source.is_counter else self._integral(opened_s, closed_s)

    def _counted(self, opened_s: float, closed_s: float) -> float:
        first, last = (bisect_right(self.times_s, moment) - 1 for moment in (opened_s, closed_s))
        times, values = (series[max(first, 0) : last + 2] for series in (self.times_s, self.values))
        if times[-2:-1] == [closed_s]:
            times, values = times[:-1], values[:-1]  # the edge is a tick, so the reading after it is not needed
        if any(later < earlier for earlier, later in itertools.pairwise(values)):
            raise Unavailable(RESET)  # the driver was reloaded, or the GPU was reset
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
        part = slice(max(0, bisect_right(self.times_s, opened_s) - 1), bisect_right(self.times_s, closed_s) + 1)
        times, watts = np.array(self.times_s[part]), np.array(self.values[part])
        inside = (times > opened_s) & (times < closed_s)
        if not inside.any() or times[0] > opened_s or times[-1] < closed_s:
            raise Unavailable(TOO_SHORT)
        at = np.concatenate([[opened_s], times[inside], [closed_s]])
        return float(np.trapezoid(np.interp(at, times, watts), at))

    def peak(self, opened_s: float, closed_s: float) -> float | None:
        """Return the highest power read between two moments, in watts; None for a counter, or if none was read."""
        if self.source.is_counter:
            return None
        first, last = bisect_left(self.times_s, opened_s), bisect_right(self.times_s, closed_s)
        return max(self.values[first:last], default=None)
