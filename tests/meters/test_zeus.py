"""Zeus's monitor (ml-energy/zeus) beside our readings, on one scripted library: where it is right they agree."""

import importlib.util
import os

import pytest

from tests.nvml.scripted import reason_of
from toolchain.meters.nvml import all_devices, open_nvml

if importlib.util.find_spec("zeus") is None:
    assert "CI" not in os.environ
    pytest.skip("zeus, of the dev extra, is not installed", allow_module_level=True)

T4 = "device {0} 6 GPU-{0}-aaaa Tesla T4\nupdate_ms {0} 20\n"
PROFILES = (
    "power 0 0 40000\n",
    "power 1 0 10000\npower 1 5000 68000\npower 1 12000 33000\n",
    "square 2 0 107 10000 70000\n",
)


def monitor(*gpus):
    from zeus.monitor import ZeusMonitor

    return ZeusMonitor(gpu_indices=list(gpus) or None, cpu_indices=[], approx_instant_energy=False)


def begin(zeus):
    zeus.begin_window("work", sync_execution=False)


def end(zeus):
    return zeus.end_window("work", sync_execution=False)


def test_zeus_agrees_with_us_and_with_the_truth(nvml):
    devices = "".join(T4.format(index) for index in range(3))
    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1,2"
    nvml.load(devices + "".join(PROFILES))
    with open_nvml():
        zeus, gpus = monitor(0, 1, 2), all_devices()
        nvml.advance(1.35)
        begin(zeus)
        before = [gpu.energy_mj() for gpu in gpus]
        nvml.advance(15)
        theirs = end(zeus).gpu_energy
        for index, gpu in enumerate(gpus):
            ours, true = (gpu.energy_mj() - before[index]) / 1000, nvml.true_joules(index, 1.35, 16.35)
            assert abs(theirs[index] / ours - 1) < 0.01, (index, theirs, ours)
            assert abs(theirs[index] / true - 1) < 0.01, (index, theirs, true)


def test_at_a_reset_zeus_has_negative_joules_and_we_have_a_reason(nvml):
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"
    nvml.load(f"{T4.format(0)}power 0 0 30000\nbase_mj 0 5000000\nreset 0 1000 0\n")
    with open_nvml():
        zeus, (gpu,) = monitor(0), all_devices()
        begin(zeus)
        before = gpu.energy_mj()
        nvml.advance(2)
        assert end(zeus).gpu_energy[0] == -4970
        assert gpu.energy_mj() < before


def test_without_a_counter_zeus_fails_and_we_integrate_power(nvml):
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"
    nvml.load(f"{T4.format(0)}power 0 0 30000\nno_counter 0\n")
    with open_nvml():
        zeus, (gpu,) = monitor(0), all_devices()
        from zeus.device.gpu.common import ZeusGPUNotSupportedError

        try:
            begin(zeus)
        except ZeusGPUNotSupportedError:
            assert (reason_of(gpu.energy_mj), gpu.power_mw()) == ("not_supported", 30000)
        else:
            raise AssertionError("Zeus has learnt it")


def test_without_a_driver_zeus_has_0_joules_and_we_have_a_reason(nvml):
    nvml.load("init_error 9\n")
    zeus = monitor()
    begin(zeus)
    assert end(zeus).total_energy == 0
    assert reason_of(open_nvml().__enter__) == "driver_not_loaded"
