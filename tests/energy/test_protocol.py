"""The protocol with a simulated counter and clock: windows, warm-up, idle power, and rates that are not reached."""

import itertools

import numpy as np
import pytest

from toolchain.energy.load import Piece, Progress
from toolchain.energy.protocol import LEAST_CALLS, Protocol, WarmUp, _is_steady, idle, measure, trial
from toolchain.errors import UsageError
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.gpu_state import State
from toolchain.meters.sources import BOARD, COUNTER, Inventory, Source

PIECE = Piece({"input_ids": np.zeros((4, 16), np.int32)}, 4, 50)


class Machine:
    """A board whose counter moves every 100 ms, on a clock that moves when the meter sleeps."""

    def __init__(self, power_w=lambda now_s: 50.0):
        self.now_s, self.power_w, self.used_j, self.shown = 0.0, power_w, 0.0, (0, 0.0)

    def sleep(self, seconds):
        self.now_s += seconds
        self.used_j += seconds * self.power_w(self.now_s)

    def read(self):
        tick = int(self.now_s * 10 + 1e-6)
        if tick != self.shown[0]:
            self.shown = tick, self.used_j
        return self.shown[1]

    def meter(self, *, sleep=None):
        source = Source(BOARD, "GPU-1", COUNTER, self.read)
        return EnergyMeter(Inventory([source]), clock=lambda: self.now_s, sleep=sleep or self.sleep)


def test_a_run_has_its_windows_and_idle_on_both_sides():
    machine = Machine()
    run = measure(lambda batch: None, [PIECE], machine.meter(), Protocol(window_s=6, windows=3, warmup_s=2))
    assert len(run.trials) == 3
    for one in run.trials:
        assert one.window.seconds >= 6
        assert one.window.component_j(BOARD) == pytest.approx(50 * one.window.seconds, rel=0.01)
        assert one.work.rows == pytest.approx(4 * one.work.calls)
        assert one.work.tokens == pytest.approx(50 * one.work.calls)
    opened = [one.window.opened_s for one in run.trials]
    assert all(later >= earlier + 7 for earlier, later in itertools.pairwise(opened))
    assert run.warm_up == WarmUp(pytest.approx(2, abs=0.1), False)
    for found in (run.hot_before, run.hot_after):
        assert found.flat
        assert found.power_w[BOARD] == pytest.approx(50, rel=0.01)


@pytest.mark.parametrize(("asked", "least"), [(1, 5), (30, 30)])
def test_no_window_is_shorter_than_the_least(asked, least):
    assert Protocol(window_s=asked).length_s(Machine().meter()) == pytest.approx(least, rel=0.01)


def loaded(*, per_s):
    """Return a meter, and the progress of a load that makes `per_s` calls a second by its clock."""
    machine, progress = Machine(), Progress()
    progress.start(0.0)

    def sleep(seconds):
        machine.sleep(seconds)
        while progress.calls + 1 <= machine.now_s * per_s:
            progress.add(PIECE, (progress.calls + 1) / per_s)

    return machine.meter(sleep=sleep), progress


def test_a_window_waits_for_enough_calls():
    meter, progress = loaded(per_s=1)
    found = trial(meter, progress, Protocol(window_s=5))
    assert found.window.seconds >= LEAST_CALLS - 2
    assert found.work.calls == pytest.approx(found.window.seconds, abs=0.1)


@pytest.mark.parametrize("per_s", [5.3, 10.7])
def test_the_call_that_a_window_ends_in_counts_by_its_share(per_s):
    meter, progress = loaded(per_s=per_s)
    for _ in range(3):
        found = trial(meter, progress, Protocol(window_s=5))
        assert found.work.calls == pytest.approx(found.window.seconds * per_s, rel=1e-6)


def test_long_calls_can_be_steady():
    meter, progress = loaded(per_s=1.9)
    meter.wait(20.4)  # the last call was done at 20, the next will be at 20.5
    assert _is_steady(meter, progress, 0.0, fixed=False)


def test_a_rate_that_is_not_reached_is_an_error_with_the_rate_that_is():
    meter, progress = loaded(per_s=10)
    progress.late_s = 3.0
    with pytest.raises(UsageError, match="--rate 100: this backend reaches 40 "):
        trial(meter, progress, Protocol(window_s=5, rate=100))


def test_idle_power_is_measured_again_while_it_falls_and_marked_if_it_does_not_settle():
    settling = idle(Machine(lambda now_s: 20 + 40 * np.exp(-now_s / 4)).meter())
    assert settling.flat
    assert settling.power_w[BOARD] == pytest.approx(20, abs=1)
    assert not idle(Machine(lambda now_s: 10 + now_s).meter()).flat


@pytest.mark.parametrize(
    ("rates", "celsius", "clock", "steady"),
    [
        ((100, 100), (60, 61), (1590, 1590), True),
        ((100, 103), (60, 60), (1590, 1590), False),
        ((100, 100), (60, 63), (1590, 1590), False),
        ((100, 100), (60, 60), (1590, 1400), False),
    ],
)
def test_the_machine_is_steady_when_throughput_temperature_and_clocks_are(rates, celsius, clock, steady):
    machine, progress = Machine(), Progress()
    progress.start(0.0)
    meter = machine.meter()
    while (last := progress.times_s[-1]) < 20:
        progress.add(PIECE, last + 1 / rates[last >= 15])
    machine.now_s = 20.0
    meter.states = {
        "GPU-1": [(second, State(celsius[second > 15], clock[second > 15], 5001, 0, 0)) for second in range(20)]
    }
    assert _is_steady(meter, progress, 0.0, fixed=False) is steady
    assert not _is_steady(meter, progress, 15.0, fixed=False)  # too early to tell
