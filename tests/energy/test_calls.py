"""Joules of a call, on a board of constant power."""

import itertools

import pytest

from toolchain.energy.calls import joules_per_call
from toolchain.energy.protocol import LEAST_CALLS, Protocol
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.nvml import Unavailable
from toolchain.meters.sources import BOARD, COUNTER, Inventory, Source


class Machine:
    """A board of 50 W whose clock moves only when the meter sleeps, so that work takes no time."""

    def __init__(self):
        self.now_s, self.calls, self.lost = 0.0, itertools.count(), False

    def sleep(self, seconds):
        self.now_s += seconds

    def read(self):
        if self.lost and self.now_s > 4:
            raise Unavailable("gpu_lost")
        return 5.0 * int(self.now_s * 10 + 1e-6)

    def meter(self):
        inventory = Inventory([Source(BOARD, "GPU-1", COUNTER, self.read)])
        inventory.missing |= dict.fromkeys(("cpu_package", "cpu_dram", "gpu_memory"), ("rapl_absent", ""))
        return EnergyMeter(inventory, clock=lambda: self.now_s, sleep=self.sleep)


def test_energy_over_calls():
    machine = Machine()
    seen = []
    joules, reason = joules_per_call(machine.meter(), Protocol(window_s=6), device="cuda:0")(lambda: seen.append(1))
    assert reason is None
    assert joules * len(seen) >= 50 * 6  # some calls are before and after the window
    assert joules <= 50 * machine.now_s / LEAST_CALLS


def test_a_device_that_cannot_be_measured_runs_nothing():
    measure = joules_per_call(Machine().meter(), Protocol(window_s=6), device="cpu")
    assert measure(lambda: pytest.fail("it ran")) == (None, "rapl_absent")


def test_a_fault_is_a_reason():
    machine = Machine()
    machine.lost = True
    assert joules_per_call(machine.meter(), Protocol(window_s=6), device="cuda:0")(lambda: None) == (None, "gpu_lost")
