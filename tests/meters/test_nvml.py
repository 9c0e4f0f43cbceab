"""NVML through the real nvidia-ml-py, on the scripted library of conftest.py."""

import os

import pynvml
import pytest

from tests.nvml.scripted import reason_of
from toolchain.meters.nvml import Unavailable, all_devices, open_nvml, visible_device, visible_devices

T4 = "device 0 6 GPU-11111111-aaaa Tesla T4\n"
TWO = f"{T4}device 1 4 GPU-22222222-bbbb Tesla P4\n"


def test_counter_and_power_are_those_of_the_board(nvml):
    nvml.load(f"{T4}base_mj 0 5000\nupdate_ms 0 100\npower 0 0 30000\npower 0 2000 68000\n")
    with open_nvml():
        (gpu,) = all_devices()
        assert (gpu.name, gpu.uuid, gpu.is_mig()) == ("Tesla T4", "GPU-11111111-aaaa", False)
        assert (gpu.energy_mj(), gpu.power_mw()) == (5000, 30000)
        nvml.advance(3)
        assert (gpu.energy_mj(), gpu.power_mw()) == (5000 + 60_000 + 68_000, 68000)


@pytest.mark.parametrize(
    ("profile", "joules"),
    [
        ("power 0 0 40000\n", 240.0),
        ("power 0 0 10000\npower 0 1000 70000\npower 0 4500 20000\n", 10 + 245 + 30),
        ("square 0 0 30 10000 70000\n", 240.0),
        ("square 0 0 400 10000 70000\npower 0 1100 30000\n", 16 + 16 + 2 + 7 + 147),
    ],
)
@pytest.mark.parametrize("update_ms", [20, 100])
def test_the_counter_is_the_true_energy_on_every_profile(nvml, profile, joules, update_ms):
    nvml.load(f"{T4}update_ms 0 {update_ms}\n{profile}")
    with open_nvml():
        (gpu,) = all_devices()
        nvml.advance(6)
        assert gpu.energy_mj() / 1000 == nvml.true_joules(0, 0, 6) == joules


@pytest.mark.parametrize(("update_ms", "ticks"), [(20, 50), (100, 10)])
def test_the_counter_moves_once_an_update(nvml, update_ms, ticks):
    nvml.load(f"{T4}update_ms 0 {update_ms}\npower 0 0 50000\n")
    with open_nvml():
        (gpu,) = all_devices()
        read = []
        for _ in range(1000):
            nvml.advance(0.001)
            read.append(gpu.energy_mj())
        assert len(set(read)) == ticks + 1
        assert read == sorted(read)


def test_a_reset_and_a_stuck_counter_have_different_reasons(nvml):
    scenario = f"{TWO}power 0 0 30000\npower 1 0 30000\nbase_mj 0 5000\nreset 0 1500 0\nstuck 1 1000\n"
    nvml.load(scenario)
    with open_nvml():
        reset, stuck = all_devices()
        read = []
        for _ in range(4):
            read.append((reset.energy_mj(), stuck.energy_mj()))
            nvml.advance(1)
        assert read == [(5000, 0), (35000, 30000), (15000, 30000), (45000, 30000)]


def test_the_real_clock_works_too(nvml):
    nvml.load(f"clock real\n{T4}update_ms 0 1\npower 0 0 30000\n")
    import time

    with open_nvml():
        (gpu,) = all_devices()
        before, start = gpu.energy_mj(), time.monotonic()
        time.sleep(0.2)
        used, seconds = gpu.energy_mj() - before, time.monotonic() - start
        assert 0.2 * 30000 <= used + 30 <= seconds * 30000 + 60


HOPPER = "device 0 9 GPU-11111111-aaaa NVIDIA H100\npower 0 0 300000\n"


@pytest.mark.parametrize(
    ("scenario", "found"),
    [
        ("memory 0 average 10\n", 30_000),
        ("memory 0 average 10\nmemory 0 instant 20\n", 60_000),
        ("memory 0 average 10\nmemory 0 instant 0\n", 30_000),
        ("", "not_supported"),
        ("memory 0 average 0\n", "reads_zero"),
        ("memory 0 instant 0\n", "reads_zero"),
        ("error 0 field186 2 0 -1\nerror 0 field185 2 0 -1\n", "nvml_2"),
        ("memory 0 average 10\nerror 0 field186 999 0 -1\n", "nvml_unknown"),
        ("memory 0 average 10\nerror 0 field185 15 0 -1\n", "gpu_lost"),
    ],
)
def test_memory_power_is_read_where_nvml_reports_it(nvml, scenario, found):
    nvml.load(HOPPER + scenario)
    with open_nvml():
        (gpu,) = all_devices()
        read = gpu.memory_power_mw() if isinstance(found, int) else reason_of(gpu.memory_power_mw)
        assert read == found


def test_a_power_of_0_is_not_a_reading(nvml):
    nvml.load(f"{TWO}power 0 0 0\npower 1 0 0\nerror 1 nvmlDeviceGetFieldValues 3 0 -1\n")
    with open_nvml():
        by_field, by_usage = all_devices()
        assert reason_of(by_field.power_mw) == reason_of(by_usage.power_mw) == "reads_zero"


def test_the_power_of_a_module_is_not_used_for_its_gpu(nvml):
    nvml.load(f"{HOPPER}superchip 0\nerror 0 nvmlDeviceGetC2cModeInfoV 999 1000 -1\n")
    with open_nvml():
        (gpu,) = all_devices()
        assert gpu.is_superchip()
        assert reason_of(gpu.power_mw) == "module_only"
        nvml.advance(2)  # what might be a superchip is not taken for none either
        assert reason_of(gpu.power_mw) == "nvml_unknown"


def test_each_of_two_gpus_has_its_own_figures(nvml):
    scenario = f"{TWO}power 0 0 30000\npower 1 0 50000\nbase_mj 1 7\nmig 1 1\nno_counter 0\n"
    nvml.load(scenario)
    with open_nvml():
        one, other = all_devices()
        nvml.advance(1)
        assert (one.power_mw(), other.power_mw(), one.is_mig(), other.is_mig()) == (30000, 50000, False, True)
        assert (reason_of(one.energy_mj), other.energy_mj()) == ("not_supported", 50007)


@pytest.mark.parametrize(
    ("scenario", "call", "reason"),
    [
        ("no_counter 0\n", "energy_mj", "not_supported"),
        ("error 0 nvmlDeviceGetTotalEnergyConsumption 4 0 -1\n", "energy_mj", "no_permission"),
        ("error 0 * 15 1000 -1\n", "energy_mj", "gpu_lost"),
        ("error 0 * 15 1000 -1\n", "power_mw", "gpu_lost"),
        ("error_after 0 nvmlDeviceGetTotalEnergyConsumption 999 0\n", "energy_mj", "nvml_unknown"),
        ("error 0 field186 4 0 -1\n", "power_mw", "no_permission"),
        ("error 0 * 16 1000 -1\n", "power_mw", "gpu_needs_reset"),
        (
            "error 0 nvmlDeviceGetFieldValues 3 0 -1\nerror 0 nvmlDeviceGetPowerUsage 3 0 -1\n",
            "power_mw",
            "not_supported",
        ),
    ],
)
def test_each_fault_has_its_reason_and_gives_no_number(nvml, scenario, call, reason):
    nvml.load(f"{T4}power 0 0 30000\n{scenario}")
    with open_nvml():
        (gpu,) = all_devices()
        nvml.advance(2)
        assert reason_of(getattr(gpu, call)) == reason


def test_a_fault_can_end_or_last(nvml):
    scenario = "error 0 nvmlDeviceGetTotalEnergyConsumption 999 1000 2000\nerror 0 * 15 3000 -1\n"
    nvml.load(f"{T4}power 0 0 30000\n{scenario}")
    with open_nvml():
        (gpu,) = all_devices()
        read = []
        for _ in range(5):
            read.append(reason_of(gpu.energy_mj))
            nvml.advance(1)
        assert read == [None, "nvml_unknown", None, "gpu_lost", "gpu_lost"]


@pytest.mark.parametrize("code", [3, 13, 2])
def test_a_driver_without_the_power_field_still_reports_power(nvml, code):
    faults = f"error 0 nvmlDeviceGetFieldValues {code} 0 -1\nerror 1 field186 {code} 0 -1\n"
    nvml.load(f"{TWO}power 0 0 30000\npower 1 0 30000\n{faults}")
    with open_nvml():
        assert [gpu.power_mw() for gpu in all_devices()] == [30000, 30000]


def test_functions_that_an_old_drivers_library_lacks(old_nvml):
    old_nvml.load(f"{T4}power 0 0 30000\n")
    with open_nvml():
        (gpu,) = all_devices()
        assert (gpu.power_mw(), gpu.is_mig(), gpu.is_superchip()) == (30000, False, False)
        assert reason_of(gpu.energy_mj) == reason_of(gpu.memory_power_mw) == "driver_too_old"


def test_a_call_outside_a_session_has_its_own_reason(nvml):
    nvml.load(T4)
    with open_nvml():
        (gpu,) = all_devices()
    assert reason_of(gpu.energy_mj) == "nvml_closed"


@pytest.mark.parametrize(("code", "reason"), [(9, "driver_not_loaded"), (18, "driver_mismatch"), (77, "nvml_77")])
def test_no_session_without_a_driver(nvml, code, reason):
    nvml.load(f"init_error {code}\n")
    assert reason_of(open_nvml().__enter__) == reason


def test_no_gpu_is_a_reason(nvml):
    nvml.load("")
    with open_nvml():
        assert reason_of(all_devices) == "no_device"


@pytest.mark.parametrize(
    ("chosen", "order", "found"),
    [
        ("0", "", "ambiguous_index"),
        ("1", "PCI_BUS_ID", [1]),
        ("1,0", "PCI_BUS_ID", [1, 0]),
        ("GPU-2222", "", [1]),
        ("GPU-11111111-aaaa,GPU-2", "", [0, 1]),
        ("GPU-2,9,GPU-1", "", [1]),
        ("", "", "no_device"),
        ("-1", "", "no_device"),
        ("MIG-1234", "", "mig_shared"),
        ("GPU-", "", "no_device"),
    ],
)
def test_gpus_are_those_that_cuda_shows(nvml, chosen, order, found):
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen
    os.environ["CUDA_DEVICE_ORDER"] = order
    nvml.load(TWO)
    with open_nvml():
        if isinstance(found, str):
            assert reason_of(visible_devices) == found
        else:
            assert [gpu.index for gpu in visible_devices()] == found


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, "ambiguous_index"),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "GPU-2,GPU-1"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1"}, "no_device"),
    ],
)
def test_a_device_number_means_the_gpu_of_cuda_or_is_an_error(nvml, environment, found):
    os.environ.update(environment)
    nvml.load(TWO)
    with open_nvml():
        assert reason_of(visible_device, 1) == found if isinstance(found, str) else visible_device(1).index == found


def test_a_session_that_cannot_be_closed_keeps_its_readings(nvml):
    nvml.load(TWO)
    with open_nvml():
        found = len(all_devices())
        pynvml.nvmlShutdown()
    assert found == 2


def test_without_the_library_there_is_a_reason():
    with pytest.raises(Unavailable, match=r"^no_nvml_library"), open_nvml():
        pytest.skip("this machine has NVIDIA's driver")
