"""Joules between two moments, from counters that move in ticks and from power sensors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.meters.nvml import Unavailable
from toolchain.meters.readings import RESET, STUCK, TOO_SHORT, Readings
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, Source


def recorded(values, *, method=COUNTER, step_s=0.001):
    """Return readings that were polled every `step_s`; an exception among the values is raised at its reading."""
    turns = iter(values)

    def read():
        if isinstance(value := next(turns), Exception):
            raise value
        return value

    readings = Readings(Source(BOARD, "GPU-1", method, read))
    for number in range(len(values)):
        readings.poll(number * step_s)
    readings.find_tick()
    return readings


def ticking(power_w, *, tick_s, seconds, step_s=0.001, start_j=7.0):
    """Return the values of a counter at constant power, every `step_s`."""
    times = np.arange(0, seconds, step_s)
    return list(start_j + power_w * np.floor(times / tick_s + 1e-9) * tick_s)


@given(
    power_w=st.floats(5, 700),
    tick_s=st.sampled_from([0.02, 0.1]),
    edges=st.tuples(st.floats(0.25, 2.5), st.floats(2.8, 4.9)),
)
def test_constant_power_is_exact_between_any_two_moments(power_w, tick_s, edges):
    readings = recorded(ticking(power_w, tick_s=tick_s, seconds=5))
    assert readings.tick_s == pytest.approx(tick_s)
    assert readings.joules(*edges) == pytest.approx(power_w * (edges[1] - edges[0]))


def test_between_its_own_ticks_a_counter_is_exact_whatever_the_power_was():
    tick_s, powers = 0.1, [10, 70, 30, 65, 12, 55]
    energy = np.concatenate([[0], np.cumsum(np.array(powers) * tick_s)])
    readings = recorded([energy[min(number // 100, 6)] for number in range(700)])
    for first in range(1, 6):
        for last in range(first + 1, 7):
            assert readings.joules(first * tick_s, last * tick_s) == pytest.approx(sum(powers[first:last]) * tick_s)


def test_power_is_integrated_as_numpy_does():
    watts = list(np.random.default_rng(3).uniform(10, 70, 200))
    readings = recorded(watts, method=INTEGRAL, step_s=0.05)
    times = np.arange(200) * 0.05
    fine = np.linspace(1.013, 8.777, 1_000_001)
    expected = np.trapezoid(np.interp(fine, times, watts), fine)
    assert readings.joules(1.013, 8.777) == pytest.approx(expected, rel=1e-6)
    assert readings.peak(1.013, 8.777) == max(watts[21:176])


def test_a_counter_that_falls_has_no_joules_until_it_has_fallen():
    readings = recorded(
        [5.0] * 100 + ticking(50, tick_s=0.1, seconds=2) + ticking(50, tick_s=0.1, seconds=2, start_j=0)
    )
    with pytest.raises(Unavailable, match=rf"^{RESET}"):
        readings.joules(0.5, 3.0)
    assert readings.joules(2.5, 3.5) == pytest.approx(50)


def test_a_fault_affects_only_the_windows_that_contain_it():
    values = ticking(50, tick_s=0.02, seconds=3)
    values[1500] = Unavailable("gpu_lost")
    readings = recorded(values)
    with pytest.raises(Unavailable, match=r"^gpu_lost"):
        readings.joules(1, 2)
    assert readings.joules(0.1, 1.4) == pytest.approx(50 * 1.3)


@pytest.mark.parametrize("edges", [(0.01, 0.05), (0.31, 0.35)])
def test_an_interval_of_fewer_than_two_ticks_has_no_figure(edges):
    readings = recorded(ticking(50, tick_s=0.1, seconds=1))
    with pytest.raises(Unavailable, match=rf"^{TOO_SHORT}"):
        readings.joules(*edges)


@pytest.mark.parametrize("edges", [(0.5, 4.0), (2.5, 4.0), (3.2, 4.9)])
def test_a_counter_that_is_stuck_at_an_edge_has_no_joules(edges):
    moving = ticking(50, tick_s=0.1, seconds=2)
    readings = recorded(moving + [moving[-1]] * 2500 + ticking(50, tick_s=0.1, seconds=1, start_j=200))
    with pytest.raises(Unavailable, match=rf"^{STUCK}"):
        readings.joules(*edges)


def test_joules_are_linear_within_a_tick_and_extrapolated_after_the_last():
    # 10, 20 and 100 W, seen at 0.1, 0.2, 0.3 s
    readings = recorded([0.0] * 100 + [1.0] * 100 + [3.0] * 100 + [13.0] * 50)
    assert readings.joules(0.15, 0.28) == pytest.approx(0.05 * 20 + 0.08 * 100)
    assert readings.joules(0.1, 0.35) == pytest.approx(12 * 0.25 / 0.2)


def test_power_outside_the_readings_is_not_extrapolated():
    readings = recorded([30.0] * 20, method=INTEGRAL, step_s=0.05)
    for edges in ((-1, 0.5), (0.5, 2), (0.51, 0.52)):
        with pytest.raises(Unavailable, match=rf"^{TOO_SHORT}"):
            readings.joules(*edges)
