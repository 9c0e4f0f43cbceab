"""The state of a GPU, on which its energy depends: limits, clocks, temperature, and other processes.

Names, fields and bits are as nvml.h documents them. A value that NVML does not report, because of an old driver, a
virtual machine or a board without a sensor, is None. Only a lost GPU raises an error.
"""

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.meters.nvml import Device, Unavailable, call
from toolchain.records.energy import Clocks, GpuDescription, GpuStates

# Reason codes after which every further reading fails too. Other reasons concern only one reading.
GONE = ("gpu_lost", "gpu_needs_reset", "driver_not_loaded", "nvml_closed")

PROCESS_NOT_SEEN = "process_not_seen"

# Cause of lower clocks -> its bit among NVML's event reasons. The driver sets `hw_slowdown` together with `hw_thermal`
# or `power_brake`.
THROTTLES = {
    "sw_power_cap": 0x04,
    "hw_slowdown": 0x08,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "power_brake": 0x80,
}


def describe(device: Device) -> GpuDescription:
    """Return the properties of a GPU that do not change during a run: power limits, highest clocks, and modes.

    Raises:
        Unavailable: the GPU is lost.
    """
    import pynvml

    allowed = _read(device, "nvmlDeviceGetPowerManagementLimitConstraints")
    return {
        "name": device.name,
        "uuid": device.uuid,
        "index": device.index,
        "architecture": _architecture(device),
        "power_limit_w": _watts(_read(device, "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")),
        "power_limit_range_w": None if allowed is None else [limit / 1000 for limit in allowed],
        "power_limit_default_w": _watts(_read(device, "nvmlDeviceGetPowerManagementDefaultLimit")),
        "sm_clock_max_mhz": _read(device, "nvmlDeviceGetMaxClockInfo", argument=pynvml.NVML_CLOCK_SM),
        "memory_clock_max_mhz": _read(device, "nvmlDeviceGetMaxClockInfo", argument=pynvml.NVML_CLOCK_MEM),
        "persistence": _flag(_read(device, "nvmlDeviceGetPersistenceMode")),
        "ecc": _flag(_read(device, "nvmlDeviceGetCurrentEccMode")),
        "mig": _value(device.is_mig),
        "superchip": _value(device.is_superchip),
    }


@dataclass(frozen=True)
class State:
    """The state of a GPU at one moment. A value is None if NVML does not report it.

    `event_reasons` has a bit for each reason that limits the clocks now (see THROTTLES).
    """

    temperature_c: int | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    p_state: int | None
    event_reasons: int | None


def read_state(device: Device) -> State:
    """Return the present state of a GPU.

    Raises:
        Unavailable: the GPU is lost.
    """
    import pynvml

    p_state = _read(device, "nvmlDeviceGetPerformanceState")
    return State(
        temperature_c=_read(
            device, "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", argument=pynvml.NVML_TEMPERATURE_GPU
        ),
        sm_clock_mhz=_read(device, "nvmlDeviceGetClockInfo", argument=pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=_read(device, "nvmlDeviceGetClockInfo", argument=pynvml.NVML_CLOCK_MEM),
        p_state=None if p_state == pynvml.NVML_PSTATE_UNKNOWN else p_state,
        event_reasons=_read(
            device, "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
        ),
    )


@dataclass(frozen=True)
class Usage:
    """The use of a GPU at one moment, by all processes. A value is None if NVML does not report it.

    `utilisation`: fraction, 0 to 1, of the driver's last sample period (up to 1 s) in which a kernel ran.
    """

    utilisation: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    power_limit_w: float | None


def read_usage(device: Device) -> Usage:
    """Return the present use of a GPU, by all processes.

    Raises:
        Unavailable: the GPU is lost.
    """
    rates, memory = _read(device, "nvmlDeviceGetUtilizationRates"), _read(device, "nvmlDeviceGetMemoryInfo")
    return Usage(
        utilisation=None if rates is None else rates.gpu / 100,
        memory_used_bytes=None if memory is None else memory.used,
        memory_total_bytes=None if memory is None else memory.total,
        power_limit_w=_watts(_read(device, "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")),
    )


def summarise(states: Sequence[State]) -> GpuStates:
    """Return the summary of the states of a GPU during a window, which are in the order of time.

    `throttled` has for each cause of lower clocks the fraction of states with it, 0 to 1, among the states for which
    NVML reports event reasons. It equals the fraction of time only if the states are evenly spaced. Several causes can
    apply at once, so the fractions need not add up to 1.
    """
    temperatures = _known(states, lambda state: state.temperature_c)
    reasons = _known(states, lambda state: state.event_reasons)
    return {
        "states": len(states),
        "temperature_c": {
            "first": temperatures[0] if temperatures else None,
            "last": temperatures[-1] if temperatures else None,
            "max": max(temperatures, default=None),
        },
        "sm_clock_mhz": _spread(_known(states, lambda state: state.sm_clock_mhz)),
        "memory_clock_mhz": _spread(_known(states, lambda state: state.memory_clock_mhz)),
        "p_states": sorted(set(_known(states, lambda state: state.p_state))) or None,
        "throttled": {
            name: sum(mask & bit != 0 for mask in reasons) / len(reasons) if reasons else None
            for name, bit in THROTTLES.items()
        },
    }


def other_processes(device: Device, own_pid: int | None = None) -> list[int] | None:
    """Return the ids of the processes other than `own_pid` that compute on the GPU; None if they are unknown.

    `own_pid` is this process by default. In a container, many drivers report the host's process ids, and one of them
    may be this process under another id. Therefore the result is None if `own_pid` is not among the ids and one of the
    ids does not exist on this system.

    Raises:
        Unavailable: the GPU is lost.
    """
    pids, own = process_ids(device), os.getpid() if own_pid is None else own_pid
    if pids is None:
        return None
    if own not in pids and not all(Path(f"/proc/{pid}").exists() for pid in pids):
        return None
    return sorted(pids - {own})


def process_ids(device: Device) -> set[int] | None:
    """Return the driver's ids of the processes that compute on the GPU; None if the driver does not report them.

    Raises:
        Unavailable: the GPU is lost.
    """
    found = _processes(device)
    return None if found is None else {process.pid for process in found}


def own_memory_mb(device: Device, own_pid: int | None = None) -> float:
    """Return the GPU memory that the process `own_pid` (default: this process) has allocated, in MB (10^6 bytes).

    Raises:
        Unavailable: the driver does not report the memory, or lists the process under another id, as in many
            containers; or the GPU is lost.
    """
    own = os.getpid() if own_pid is None else own_pid
    used = [process.usedGpuMemory for process in _processes(device) or () if process.pid == own]
    if not used:
        raise Unavailable(PROCESS_NOT_SEEN, f"process {own}")
    if used[0] is None:
        raise Unavailable("not_supported", "memory of processes")
    return float(used[0]) / 1e6


def _processes(device: Device) -> list[Any] | None:
    # The versioned names are used, because the function without a version raises an error that is not an NVMLError.
    found: list[Any] | None = _read(
        device, "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"
    )
    return found


def _read(device: Device, *names: str, argument: int | None = None) -> Any:
    """Call pynvml functions for a GPU, by name, until one returns a value; return this value, or None if none does.

    `argument` is the second argument of the functions, if they have one.
    """
    import pynvml

    arguments = (device.handle,) if argument is None else (device.handle, argument)
    known = (getattr(pynvml, name, None) for name in names)  # older releases of nvidia-ml-py lack the newest functions
    values = (_value(function, *arguments) for function in known if function is not None)
    return next((value for value in values if value is not None), None)


def _value(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a pynvml function and return its value, or None if the driver or the GPU does not support it.

    Raises:
        Unavailable: the GPU is lost.
    """
    try:
        return call(function, *arguments)
    except Unavailable as why:
        if why.reason in GONE:
            raise
        return None


def _architecture(device: Device) -> str | None:
    import pynvml

    prefix = "NVML_DEVICE_ARCH_"
    names = {number: name for name, number in vars(pynvml).items() if name.startswith(prefix)}
    name = names.get(_read(device, "nvmlDeviceGetArchitecture"), f"{prefix}UNKNOWN")
    return None if name == f"{prefix}UNKNOWN" else name.removeprefix(prefix).lower()


def _watts(mw: int | None) -> float | None:
    return None if mw is None else mw / 1000


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _known(states: Sequence[State], read: Callable[[State], int | None]) -> list[int]:
    return [value for value in map(read, states) if value is not None]


def _spread(values: list[int]) -> Clocks:
    if not values:
        return {"median": None, "min": None, "max": None}
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
