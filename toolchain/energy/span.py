"""Joules of a span that begins and ends anywhere, and the most that its edges can put them off by.

The evaluator's windows begin and end on ticks. A command cannot be made to end on one, so joules are known at the last
tick before its end and at the next one behind it, and in between are taken to grow evenly.
"""

from bisect import bisect_right
from dataclasses import replace

import numpy as np

from toolchain.meters.energy import EnergyMeter, Key, Window
from toolchain.meters.nvml import Unavailable
from toolchain.meters.track import STUCK, TOO_SHORT, Track

SENSOR_S = 0.1
"""How old a power may be when it is read: the slowest known sensors are published so often."""

Joules = tuple[float, float]
"""Of a span, and the most that they may be off by because of its edges."""


def close(meter: EnergyMeter) -> float:
    """Return the moment of the end, once every counter has ticked after it."""
    meter.poll()  # or a tick from before the end, seen after it, would be taken for the next
    closed_s = meter.clock()
    meter.edge()
    return closed_s


def measured(meter: EnergyMeter, opened_s: float, closed_s: float) -> tuple[Window, dict[Key, float]]:
    """Return what was used between `meter.edge()` and `close(meter)`, and the joules that the edges leave open."""
    joules: dict[Key, float] = {}
    open_j: dict[Key, float] = {}
    reasons: dict[Key, str] = {}
    for key, track in meter.tracks.items():
        read = _counted if track.source.is_counter else _integrated
        try:
            joules[key], open_j[key] = _sure(*read(track, opened_s, closed_s))
        except Unavailable as why:
            reasons[key] = why.reason
    return replace(meter.between(opened_s, closed_s), joules=joules, reasons=reasons), open_j


def _sure(joules: float, open_j: float) -> Joules:
    if open_j >= joules:
        raise Unavailable(TOO_SHORT)  # less than nothing, or twice as much: no figure at all
    return joules, open_j


def _counted(track: Track, opened_s: float, closed_s: float) -> Joules:
    """Return joules from tick to tick less those outside; they are off by no more than the ticks that are cut."""
    times = track.times_s
    first, last = bisect_right(times, opened_s) - 1, bisect_right(times, closed_s)
    if last == len(times):
        raise Unavailable(next((reason for when, reason in track.faults if when >= opened_s), STUCK))
    joules, open_j = track.joules(times[first], times[last]), 0.0
    for index, outside_s in ((first + 1, opened_s - times[first]), (last, times[last] - closed_s)):
        if outside_s:
            tick_j = track.values[index] - track.values[index - 1]
            # What was polled in passing is seen late, so that two ticks can look nearer than they are.
            joules -= tick_j * outside_s / max(track.tick_s or 0.0, times[index] - times[index - 1])
            open_j += tick_j
    return joules, open_j


def _integrated(track: Track, opened_s: float, closed_s: float) -> Joules:
    """Return the integral of power; it is off by as much as was used while the first and last reading grew old."""
    edges_w = np.interp([opened_s, closed_s], track.times_s, track.values)
    return track.joules(opened_s, closed_s), SENSOR_S * float(edges_w.sum())
