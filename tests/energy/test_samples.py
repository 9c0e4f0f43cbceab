"""Power in even steps, against what the readings were made of."""

import numpy as np
import pytest

from toolchain.energy import samples
from toolchain.energy.samples import sample
from toolchain.meters.energy import Window
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, MEMORY, PACKAGE, RAPL, Source
from toolchain.meters.track import Track

GPU, OTHER, MEMORY_KEY, CPU = (BOARD, "GPU-1"), (BOARD, "GPU-2"), (MEMORY, "GPU-1"), (PACKAGE, "package-0")


class Meter:
    def __init__(self, tracks, powers):
        self.tracks, self.powers = tracks, powers


def track(key, method, times_s, values, tick_s=None):
    return Track(Source(*key, method, lambda: 0.0), list(times_s), list(values), tick_s=tick_s)


def window(joules, *, integral_j=(), seconds=10.0):
    return Window(2.0, 2.0 + seconds, joules, {}, dict.fromkeys(integral_j, 1.0), {}, {})


def test_a_sensor_is_sampled_and_its_counter_counts():
    times = np.arange(0, 13, 0.0513)
    watts = np.where((times > 5) & (times < 5.2), 70.0, 30.0)
    power = track(GPU, INTEGRAL, times, watts)
    ticks = np.arange(0, 13, 0.1)
    meter = Meter({GPU: track(GPU, COUNTER, ticks, 31 * ticks, tick_s=0.1)}, {"GPU-1": power})
    found = sample(meter, window({GPU: 310.0}, integral_j=["GPU-1"]), "auto")
    assert found.time_s[-1] == pytest.approx(10)
    assert set(found.power_w[BOARD]) == {30.0, 70.0}
    assert (found.peak_w[BOARD], found.total_peak_w) == (70.0, 70.0)
    assert found.joules[BOARD] == pytest.approx(31 * found.time_s, abs=0.01)


def test_a_board_without_a_sensor_is_drawn_by_its_counter_though_ticks_are_seen_late():
    ticks = np.arange(0, 13, 0.1)
    late = np.ceil(ticks / 0.0513) * 0.0513
    meter = Meter({GPU: track(GPU, COUNTER, late, 50 * ticks, tick_s=0.1)}, {})
    found = sample(meter, window({GPU: 500.0}), "auto")
    assert found.power_w[BOARD] == pytest.approx(50, rel=0.12)
    assert found.joules[BOARD][-1] == pytest.approx(500)


def test_boards_and_packages_add_up_and_memory_does_not():
    times = np.arange(0, 13, 0.05)
    tracks = {
        key: track(key, INTEGRAL, times, np.full(len(times), watts))
        for key, watts in ((GPU, 40.0), (OTHER, 20.0), (MEMORY_KEY, 9.0))
    }
    tracks[CPU] = track(CPU, RAPL, times, 15 * times, tick_s=0.001)
    joules = {GPU: 400.0, OTHER: 200.0, MEMORY_KEY: 90.0, CPU: 150.0}
    found = sample(Meter(tracks, {}), window(joules), "auto")
    assert found.peak_w == pytest.approx({BOARD: 60, MEMORY: 9, PACKAGE: 15})
    assert found.total_peak_w == pytest.approx(75)
    assert sample(Meter(tracks, {}), window(joules), "cpu").total_peak_w == pytest.approx(15)


def test_a_long_run_keeps_means_and_the_peaks_of_all(monkeypatch):
    monkeypatch.setattr(samples, "MOST", 20)
    times = np.arange(0, 13, 0.05)
    watts = np.where(np.isclose(times, 7.0), 90.0, 30.0)
    meter = Meter({GPU: track(GPU, INTEGRAL, times, watts)}, {})
    found = sample(meter, window({GPU: 303.0}), "auto")
    assert len(found.time_s) == len(found.power_w[BOARD]) == len(found.joules[BOARD]) == 20
    assert found.power_w[BOARD].mean() == pytest.approx(30.3, rel=0.01)
    assert found.peak_w[BOARD] == 90.0


def test_json_has_units_in_its_names():
    meter = Meter({GPU: track(GPU, INTEGRAL, [0.0, 13.0], [30.0, 30.0])}, {})
    found = sample(meter, window({GPU: 3.0}, seconds=0.1), "auto").to_json()
    assert found == {"time_s": [0.05, 0.1], "gpu_board_w": [30.0, 30.0], "gpu_board_j": [1.5, 3.0]}


def test_nothing_measured_is_nothing():
    found = sample(Meter({}, {}), window({}), "auto")
    assert (found.power_w, found.peak_w, found.total_peak_w) == ({}, {}, None)
