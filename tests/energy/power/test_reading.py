"""Joules over intervals that do not end on ticks, against the truth and their stated error; power in even steps."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.energy.power import reading
from toolchain.energy.power.reading import SENSOR_S, close, measured, sample
from toolchain.meters.energy import EnergyMeter, Window
from toolchain.meters.nvml import Unavailable
from toolchain.meters.readings import RESET, STUCK, TOO_SHORT, Readings
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, MEMORY, PACKAGE, RAPL, Inventory, Source

KEY = (BOARD, "GPU-1")
TICK_S = 0.1
EDGE_S = 0.001
POLL_S = 0.05


def polled(closed_s: float) -> np.ndarray:
    """Return the moments of readings: every EDGE_S up to 2 s, then every POLL_S, and every EDGE_S from the end on."""
    passing = np.arange(2, closed_s - EDGE_S, POLL_S)
    return np.concatenate([np.arange(0, 2, EDGE_S), passing, closed_s + EDGE_S * np.arange(300)])


def recorded(values, times_s, *, method=COUNTER):
    """Return readings of values at their moments; an exception among the values is raised at its reading."""
    turns = iter(values)

    def read():
        if isinstance(value := next(turns), Exception):
            raise value
        return value

    one = Readings(Source(*KEY, method, read))
    for number, moment in enumerate(times_s):
        one.poll(float(moment))
        if number == 1500:
            one.find_tick()
    return one


def counted(true_joules, times_s, *, phase_s=0.0):
    """Return the values of a counter that ticks every 100 ms, from `phase_s` on."""
    ticks_s = np.floor((times_s - phase_s) / TICK_S + 1e-9) * TICK_S + phase_s
    return list(np.round(true_joules(ticks_s), 6))


def span(one, opened_s, closed_s):
    def between(opened_s, closed_s):
        return Window(opened_s, closed_s, {}, {}, {}, {}, {})

    return measured(SimpleNamespace(readings={KEY: one}, between=between), opened_s, closed_s)


@given(low=st.floats(5, 60), high=st.floats(60, 700), closed_s=st.floats(4, 9), phase_s=st.floats(0, 0.0999))
def test_the_truth_is_within_the_stated_error(low, high, closed_s, phase_s):
    def true_joules(moments):  # power jumps from low to high after each whole second, and back after the next
        whole, rest = np.divmod(moments, 2)
        return whole * (low + high) + np.minimum(rest, 1) * low + np.maximum(rest - 1, 0) * high

    times = polled(closed_s)
    opened_s = 1.9
    window, open_j = span(recorded(counted(true_joules, times, phase_s=phase_s), times), opened_s, closed_s)
    truth = float(true_joules(closed_s) - true_joules(opened_s))
    assert abs(window.joules[KEY] - truth) <= open_j[KEY] + high * EDGE_S
    assert open_j[KEY] <= 2 * high * TICK_S + 1e-5


@given(closed_s=st.floats(2.3, 9), phase_s=st.floats(0, 0.0999))
def test_constant_power_is_nearly_exact_wherever_it_ends(closed_s, phase_s):
    times = polled(closed_s)
    one = recorded(counted(lambda moments: 50 * moments, times, phase_s=phase_s), times)
    window, _ = span(one, 1.9, closed_s)
    assert window.joules[KEY] == pytest.approx(50 * (closed_s - 1.9), abs=50 * 3 * EDGE_S)


def test_the_stated_error_is_the_energy_of_the_last_tick():
    def true_joules(moments):  # 700 W for the first 10 ms of each tick, and nothing after it
        ticks, rest_s = np.divmod(np.asarray(moments) + 1e-9, TICK_S)
        return ticks * 7 + np.minimum(rest_s, 0.01) * 700

    times = polled(4.01)
    one = recorded(counted(true_joules, times), times)
    opened_s = one.times_s[15]
    window, open_j = span(one, opened_s, 4.01)
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


def test_the_error_of_integrated_power_is_the_age_of_its_sensor():
    times = polled(4.0)
    window, open_j = span(recorded([60.0] * len(times), times, method=INTEGRAL), 1.9, 4.0)
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
def test_an_interval_without_two_valid_ends_has_no_figure(closed_s, at_s, what, reason):
    """From `at_s` on, the GPU is lost, its counter is reset or stuck; or the interval is too short."""
    times = polled(closed_s)
    values = counted(lambda moments: 7 + 50 * moments, times)
    for index in np.flatnonzero(times >= at_s):
        values[index] = what(values[index - 1], values[index])
    window, open_j = span(recorded(values, times), 1.9, closed_s)
    assert (window.joules, open_j, window.reasons) == ({}, {}, {KEY: reason})


OTHER, MEMORY_KEY, CPU = (BOARD, "GPU-2"), (MEMORY, "GPU-1"), (PACKAGE, "package-0")


class Meter:
    """The readings of a meter, filled by hand."""

    def __init__(self, readings, powers):
        self.readings, self.powers = readings, powers


def made(key, method, times_s, values, tick_s=None):
    return Readings(Source(*key, method, lambda: 0.0), list(times_s), list(values), tick_s=tick_s)


def window(joules, *, integral_j=(), seconds=10.0):
    return Window(2.0, 2.0 + seconds, joules, {}, dict.fromkeys(integral_j, 1.0), {}, {})


def test_power_comes_from_the_sensor_and_joules_from_the_counter():
    times = np.arange(0, 13, 0.0513)
    watts = np.where((times > 5) & (times < 5.2), 70.0, 30.0)
    power = made(KEY, INTEGRAL, times, watts)
    ticks = np.arange(0, 13, 0.1)
    meter = Meter({KEY: made(KEY, COUNTER, ticks, 31 * ticks, tick_s=0.1)}, {"GPU-1": power})
    found = sample(meter, window({KEY: 310.0}, integral_j=["GPU-1"]), "auto")
    assert found.time_s[-1] == pytest.approx(10)
    assert set(found.power_w[BOARD]) == {30.0, 70.0}
    assert (found.peak_w[BOARD], found.total_peak_w) == (70.0, 70.0)
    assert found.joules[BOARD] == pytest.approx(31 * found.time_s, abs=0.01)


def test_a_board_without_a_sensor_is_drawn_by_its_counter_though_ticks_are_seen_late():
    ticks = np.arange(0, 13, 0.1)
    late = np.ceil(ticks / 0.0513) * 0.0513
    meter = Meter({KEY: made(KEY, COUNTER, late, 50 * ticks, tick_s=0.1)}, {})
    found = sample(meter, window({KEY: 500.0}), "auto")
    assert found.power_w[BOARD] == pytest.approx(50, rel=0.12)
    assert found.joules[BOARD][-1] == pytest.approx(500)


def test_boards_and_packages_add_up_and_memory_does_not():
    times = np.arange(0, 13, 0.05)
    readings = {
        key: made(key, INTEGRAL, times, np.full(len(times), watts))
        for key, watts in ((KEY, 40.0), (OTHER, 20.0), (MEMORY_KEY, 9.0))
    }
    readings[CPU] = made(CPU, RAPL, times, 15 * times, tick_s=0.001)
    joules = {KEY: 400.0, OTHER: 200.0, MEMORY_KEY: 90.0, CPU: 150.0}
    found = sample(Meter(readings, {}), window(joules), "auto")
    assert found.peak_w == pytest.approx({BOARD: 60, MEMORY: 9, PACKAGE: 15})
    assert found.total_peak_w == pytest.approx(75)
    assert sample(Meter(readings, {}), window(joules), "cpu").total_peak_w == pytest.approx(15)


def test_a_long_run_keeps_means_and_the_peaks_of_all(monkeypatch):
    monkeypatch.setattr(reading, "MOST_SAMPLES", 20)
    times = np.arange(0, 13, 0.05)
    watts = np.where(np.isclose(times, 7.0), 90.0, 30.0)
    meter = Meter({KEY: made(KEY, INTEGRAL, times, watts)}, {})
    found = sample(meter, window({KEY: 303.0}), "auto")
    assert len(found.time_s) == len(found.power_w[BOARD]) == len(found.joules[BOARD]) == 20
    assert found.power_w[BOARD].mean() == pytest.approx(30.3, rel=0.01)
    assert found.peak_w[BOARD] == 90.0


def test_json_has_units_in_its_names():
    meter = Meter({KEY: made(KEY, INTEGRAL, [0.0, 13.0], [30.0, 30.0])}, {})
    found = sample(meter, window({KEY: 3.0}, seconds=0.1), "auto").to_json()
    assert found == {"time_s": [0.05, 0.1], "gpu_board_w": [30.0, 30.0], "gpu_board_j": [1.5, 3.0]}


def test_without_joules_there_are_no_samples():
    found = sample(Meter({}, {}), window({}), "auto")
    assert (found.power_w, found.peak_w, found.total_peak_w) == ({}, {}, None)
