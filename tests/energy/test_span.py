"""Joules between moments that are no ticks: never further from the truth than they say."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.energy.span import SENSOR_S, close, measured
from toolchain.meters.energy import EnergyMeter, Window
from toolchain.meters.nvml import Unavailable
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, Inventory, Source
from toolchain.meters.track import RESET, STUCK, TOO_SHORT, Track

KEY = (BOARD, "GPU-1")
TICK_S = 0.1
EDGE_S = 0.001
POLL_S = 0.05


def polled(closed_s: float) -> np.ndarray:
    """Return when the meter reads: closely up to 2 s, then in passing, and closely again from the end on."""
    passing = np.arange(2, closed_s - EDGE_S, POLL_S)
    return np.concatenate([np.arange(0, 2, EDGE_S), passing, closed_s + EDGE_S * np.arange(300)])


def tracked(values, times_s, *, method=COUNTER):
    """Return a track of readings; an exception among them is raised when its turn comes."""
    turns = iter(values)

    def read():
        if isinstance(value := next(turns), Exception):
            raise value
        return value

    track = Track(Source(*KEY, method, read))
    for number, moment in enumerate(times_s):
        track.poll(float(moment))
        if number == 1500:
            track.find_tick()
    return track


def counted(true_joules, times_s, *, phase_s=0.0):
    """Return what a counter says that ticks every 100 ms, from `phase_s` on."""
    ticks_s = np.floor((times_s - phase_s) / TICK_S + 1e-9) * TICK_S + phase_s
    return list(np.round(true_joules(ticks_s), 6))


def span(track, opened_s, closed_s):
    def between(opened_s, closed_s):
        return Window(opened_s, closed_s, {}, {}, {}, {}, {})

    return measured(SimpleNamespace(tracks={KEY: track}, between=between), opened_s, closed_s)


@given(low=st.floats(5, 60), high=st.floats(60, 700), closed_s=st.floats(4, 9), phase_s=st.floats(0, 0.0999))
def test_the_truth_is_within_what_is_left_open(low, high, closed_s, phase_s):
    def true_joules(moments):  # power jumps from low to high after each whole second, and back after the next
        whole, rest = np.divmod(moments, 2)
        return whole * (low + high) + np.minimum(rest, 1) * low + np.maximum(rest - 1, 0) * high

    times = polled(closed_s)
    opened_s = 1.9
    window, open_j = span(tracked(counted(true_joules, times, phase_s=phase_s), times), opened_s, closed_s)
    truth = float(true_joules(closed_s) - true_joules(opened_s))
    assert abs(window.joules[KEY] - truth) <= open_j[KEY] + high * EDGE_S
    assert open_j[KEY] <= 2 * high * TICK_S + 1e-5


@given(closed_s=st.floats(2.3, 9), phase_s=st.floats(0, 0.0999))
def test_constant_power_is_nearly_exact_wherever_it_ends(closed_s, phase_s):
    times = polled(closed_s)
    track = tracked(counted(lambda moments: 50 * moments, times, phase_s=phase_s), times)
    window, _ = span(track, 1.9, closed_s)
    assert window.joules[KEY] == pytest.approx(50 * (closed_s - 1.9), abs=50 * 3 * EDGE_S)


def test_what_is_left_open_is_all_that_the_last_tick_held():
    def true_joules(moments):  # 700 W for the first 10 ms of each tick, and nothing after it
        ticks, rest_s = np.divmod(np.asarray(moments) + 1e-9, TICK_S)
        return ticks * 7 + np.minimum(rest_s, 0.01) * 700

    times = polled(4.01)
    track = tracked(counted(true_joules, times), times)
    opened_s = track.times_s[15]
    window, open_j = span(track, opened_s, 4.01)
    assert true_joules(4.01) - true_joules(opened_s) - window.joules[KEY] == pytest.approx(0.9 * 7, abs=0.1)
    assert open_j[KEY] == pytest.approx(7)


def test_a_tick_between_the_last_reading_and_the_end_is_from_before_the_end():
    now_s = 0.0

    def clock():
        nonlocal now_s
        now_s += 1e-5
        return now_s

    def sleep(seconds):
        nonlocal now_s
        now_s += seconds

    source = Source(*KEY, COUNTER, lambda: 50 * np.floor(now_s / TICK_S) * TICK_S)
    meter = EnergyMeter(Inventory([source]), clock, sleep)
    opened_s = meter.edge()
    sleep(0.73)
    window, _ = measured(meter, opened_s, close(meter))
    assert window.joules[KEY] == pytest.approx(50 * 0.73, abs=0.2)


def test_power_is_integrated_and_as_uncertain_as_its_sensor_is_old():
    times = polled(4.0)
    window, open_j = span(tracked([60.0] * len(times), times, method=INTEGRAL), 1.9, 4.0)
    assert window.joules[KEY] == pytest.approx(60 * 2.1)
    assert open_j[KEY] == pytest.approx(SENSOR_S * 120)


@pytest.mark.parametrize(
    ("closed_s", "at_s", "what", "reason"),
    [
        (4.0, 3.0, lambda before, now: Unavailable("gpu_lost"), "gpu_lost"),
        (4.0, 3.0, lambda before, now: now - 99, RESET),
        (4.0, 4.0, lambda before, now: before, STUCK),
        (1.95, 9.0, None, TOO_SHORT),
    ],
)
def test_no_figure_without_two_sound_ends(closed_s, at_s, what, reason):
    """From `at_s` on, the GPU is lost, its counter starts anew, or it stands still; or all is well, but too short."""
    times = polled(closed_s)
    values = counted(lambda moments: 7 + 50 * moments, times)
    for index in np.flatnonzero(times >= at_s):
        values[index] = what(values[index - 1], values[index])
    window, open_j = span(tracked(values, times), 1.9, closed_s)
    assert (window.joules, open_j, window.reasons) == ({}, {}, {KEY: reason})
