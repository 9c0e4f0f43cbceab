"""The record of one component, from windows and readings made by hand."""

from types import SimpleNamespace

import pytest

from toolchain.energy.components import component
from toolchain.meters.energy import Window
from toolchain.meters.readings import Readings
from toolchain.meters.sources import BOARD, COUNTER, Source

GPU = (BOARD, "GPU-1")


def window(joules, *, peak_w=None):
    """Return a window of two seconds; None stands for a lost GPU."""
    found = {} if joules is None else {GPU: joules}
    lost = {GPU: "gpu_lost"} if joules is None else {}
    return Window(0, 2, found, lost, integral_j={}, peak_w=peak_w or {}, states={})


@pytest.fixture
def meter():
    one = Readings(Source(*GPU, COUNTER, lambda: 0.0))
    return SimpleNamespace(readings={GPU: one}, missing={})


def test_windows_without_it_are_left_out(meter):
    found = component(BOARD, [window(10), window(None), window(30)], meter, "cuda:0")
    assert (found["joules"], found["mean_power_w"], found["method"]) == (40, 10, COUNTER)


def test_a_component_without_joules_in_any_window_has_the_reason(meter):
    found = component(BOARD, [window(None)], meter, "cuda:0")
    assert (found["joules"], found["method"], found["reason"]) == (None, "unavailable", "gpu_lost")


def test_a_device_that_is_missing_is_named(meter):
    meter.missing[BOARD] = ("not_supported", "not_supported: GPU-2")
    assert "GPU-2" in component(BOARD, [window(10)], meter, "cuda:0")["detail"]


@pytest.mark.parametrize(("peak_w", "expected"), [({}, None), ({"GPU-1": 70.0, "GPU-2": 30.0}, 100.0)])
def test_a_board_without_a_sensor_has_no_peak(meter, peak_w, expected):
    assert component(BOARD, [window(10, peak_w=peak_w)], meter, "cuda:0")["peak_power_w"] == expected
