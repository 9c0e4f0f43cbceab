import os

import pynvml
import pytest

from tests.nvml.scripted import reason_of
from toolchain.meters.gpu_state import (
    THROTTLES,
    State,
    Usage,
    describe,
    other_processes,
    read_state,
    read_usage,
    summarise,
)
from toolchain.meters.nvml import all_devices, open_nvml

T4 = "device 0 6 GPU-11111111-aaaa Tesla T4\npower 0 0 30000\n"
UNKNOWN = State(None, None, None, None, None)


def test_the_description_of_a_gpu_has_its_constant_properties(nvml):
    expected = {
        "name": "Tesla T4",
        "uuid": "GPU-11111111-aaaa",
        "index": 0,
        "architecture": "turing",
        "power_limit_w": 65.0,
        "power_limit_range_w": [60.0, 70.0],
        "power_limit_default_w": 70.0,
        "sm_clock_max_mhz": 1590,
        "memory_clock_max_mhz": 5001,
        "persistence": False,
        "ecc": True,
        "mig": False,
        "superchip": False,
    }
    nvml.load(f"{T4}limit 0 65000\necc 0 1\npersistence 0 0\n")
    with open_nvml():
        (gpu,) = all_devices()
        assert describe(gpu) == expected


def test_values_that_nvml_does_not_report_are_null(nvml):
    functions = (
        "Architecture",
        "EnforcedPowerLimit",
        "PowerManagementLimit",
        "PowerManagementLimitConstraints",
        "PowerManagementDefaultLimit",
        "MigMode",
        "MaxClockInfo",
        "PersistenceMode",
        "C2cModeInfoV",
    )
    faults = "".join(f"error 0 nvmlDeviceGet{name} 999 0 -1\n" for name in functions)
    nvml.load(f"{T4}ecc 0 -1\n{faults}")
    with open_nvml():
        (gpu,) = all_devices()

        found = describe(gpu)
        assert {name for name, value in found.items() if value is not None} == {"name", "uuid", "index"}


@pytest.mark.parametrize(("missing", "limit_w"), [("", 62.5), ("missing 0 nvmlDeviceGetEnforcedPowerLimit\n", 70.0)])
def test_the_limit_is_the_enforced_one_or_else_the_one_asked_for(nvml, missing, limit_w):
    nvml.load(f"{T4}limit 0 62500\n{missing}")
    with open_nvml():
        (gpu,) = all_devices()
        assert describe(gpu)["power_limit_w"] == limit_w


def test_a_state_is_that_of_the_moment_of_reading(nvml):
    scenario = (
        "temp 0 35\ntemp 0 1000 71\nsm_clock 0 1590\nsm_clock 0 1000 1005\nmemory_clock 0 5000\n"
        "pstate 0 8\npstate 0 1000 0\nthrottle 0 1\nthrottle 0 1000 24\n"
    )
    nvml.load(T4 + scenario)
    with open_nvml():
        (gpu,) = all_devices()

        assert read_state(gpu) == State(35, 1590, 5000, 8, 0x01)
        nvml.advance(1)
        assert read_state(gpu) == State(71, 1005, 5000, 0, 0x24)


def test_an_old_driver_is_read_by_its_old_functions(nvml):
    nvml.load(f"{T4}temp 0 71\nthrottle 0 4\n")
    with open_nvml():
        (gpu,) = all_devices()

        assert read_state(gpu) == State(71, 1590, 5000, 0, 0x4)
        assert describe(gpu)["power_limit_w"] == 70


def test_an_unknown_p_state_is_none(nvml):
    nvml.load(f"{T4}pstate 0 32\n")
    with open_nvml():
        (gpu,) = all_devices()
        assert read_state(gpu).p_state is None


@pytest.mark.parametrize("code", [3, 4, 13, 999])
def test_a_state_that_nvml_does_not_report_is_none(nvml, code):
    nvml.load(f"{T4}error 0 * {code} 1000 -1\n")
    with open_nvml():
        (gpu,) = all_devices()
        nvml.advance(1)
        assert read_state(gpu) == State(*[None] * 5)


@pytest.mark.parametrize(("code", "reason"), [(15, "gpu_lost"), (16, "gpu_needs_reset"), (9, "driver_not_loaded")])
def test_a_lost_gpu_raises_instead_of_returning_nulls(nvml, code, reason):
    nvml.load(f"{T4}error 0 * {code} 1000 -1\n")
    with open_nvml():
        (gpu,) = all_devices()

        nvml.advance(1)
        assert {reason_of(ask, gpu) for ask in (describe, read_state, read_usage, other_processes)} == {reason}


def test_usage_is_shares_bytes_and_watts(nvml):
    nvml.load(f"{T4}utilisation 0 37\nframe_buffer 0 3000000000 15000000000\nlimit 0 65000\n")
    with open_nvml():
        (gpu,) = all_devices()
        assert read_usage(gpu) == Usage(0.37, 3_000_000_000, 15_000_000_000, 65)


def test_usage_that_nvml_does_not_report_is_null(nvml):
    nvml.load(T4)
    with open_nvml():
        (gpu,) = all_devices()
        assert read_usage(gpu) == Usage(None, None, None, 70)


SEEN, UNSEEN = os.getpid(), 2**22 + 1  # a process that all tests' processes see; a number above the kernel's highest


@pytest.mark.parametrize(
    ("listed", "own", "others"),
    [
        ("", None, []),
        (f"{SEEN}", SEEN, []),
        (f"{SEEN}", None, [SEEN]),
        (f"{SEEN},1", SEEN, [1]),
        (f"{UNSEEN}", None, None),
        (f"{UNSEEN},{SEEN}", SEEN, [UNSEEN]),
    ],
    ids=["none", "itself", "one", "itself and another", "unseen", "unseen and itself"],
)
def test_other_processes_are_those_that_cannot_be_this_one(nvml, listed, own, others):
    nvml.load(f"{T4}processes 0 {listed}\n")
    with open_nvml():
        (gpu,) = all_devices()
        assert other_processes(gpu, own) == others


def test_this_process_is_not_among_the_others(nvml):
    nvml.load(f"{T4}processes 0 {os.getpid()}\n")
    with open_nvml():
        (gpu,) = all_devices()
        assert other_processes(gpu) == []


def test_unknown_processes_are_null_instead_of_an_empty_list(nvml):
    nvml.load(f"{T4}missing 0 nvmlDeviceGetComputeRunningProcesses_v3\n")
    with open_nvml():
        (gpu,) = all_devices()
        assert other_processes(gpu) is None


def test_a_series_of_states_is_summarised():
    states = [
        State(40, 1590, 5001, 0, 0x01),
        State(70, 1000, 5001, 2, 0x04),
        State(66, 1200, 5001, 0, 0x2C),
        UNKNOWN,
        State(65, 1100, 5001, 0, 0x04),
    ]
    assert summarise(states) == {
        "states": 5,
        "temperature_c": {"first": 40, "last": 65, "max": 70},
        "sm_clock_mhz": {"median": 1150, "min": 1000, "max": 1590},
        "memory_clock_mhz": {"median": 5001, "min": 5001, "max": 5001},
        "p_states": [0, 2],
        "throttled": {"sw_power_cap": 0.75, "hw_slowdown": 0.25, "sw_thermal": 0.25, "hw_thermal": 0, "power_brake": 0},
    }


@pytest.mark.parametrize("states", [[], [UNKNOWN, UNKNOWN]])
def test_unknown_states_are_null_instead_of_0(states):
    found = summarise(states)
    assert found.pop("states") == len(states)
    leaves = [leaf for value in found.values() for leaf in (value.values() if isinstance(value, dict) else [value])]
    assert len(leaves) == 15
    assert set(leaves) == {None}


def test_the_bits_are_those_of_nvidia_ml_py():
    names = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
    assert list(THROTTLES.values()) == [getattr(pynvml, f"nvmlClocksEventReason{name}") for name in names]
