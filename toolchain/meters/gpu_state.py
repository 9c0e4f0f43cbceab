"""What a GPU's energy depends on besides the work: its limits, clocks, temperature, and who else uses it.

Names, fields and bits as nvml.h documents them. What NVML does not tell (an old driver, a guest, a board without it)
is null; only a GPU that is gone is an error.
"""

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.meters.nvml import Device, Unavailable, call

GONE = ("gpu_lost", "gpu_needs_reset", "driver_not_loaded", "nvml_closed")
"""Reasons for which nothing more can be told, unlike those that concern one reading."""

PROCESS_NOT_SEEN = "process_not_seen"

THROTTLES = {
    "sw_power_cap": 0x04,
    "hw_slowdown": 0x08,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "power_brake": 0x80,
}
"""What holds the clocks down -> its bit among the event reasons; hw_slowdown stands beside the two after sw_thermal."""


def describe(device: Device) -> dict[str, Any]:
    """Return what does not change in a run: limits in W, highest clocks in MHz, modes; null where it is not told.

    `superchip`: GPU and processor are one module, and the counter may be the module's.

    Raises:
        Unavailable: the GPU is lost.
    """
    import pynvml

    allowed = _told(device, "nvmlDeviceGetPowerManagementLimitConstraints")
    return {
        "name": device.name,
        "uuid": device.uuid,
        "index": device.index,
        "architecture": _architecture(device),
        "power_limit_w": _watts(_told(device, "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")),
        "power_limit_range_w": None if allowed is None else [_watts(limit) for limit in allowed],
        "power_limit_default_w": _watts(_told(device, "nvmlDeviceGetPowerManagementDefaultLimit")),
        "sm_clock_max_mhz": _told(device, "nvmlDeviceGetMaxClockInfo", argument=pynvml.NVML_CLOCK_SM),
        "memory_clock_max_mhz": _told(device, "nvmlDeviceGetMaxClockInfo", argument=pynvml.NVML_CLOCK_MEM),
        "persistence": _flag(_told(device, "nvmlDeviceGetPersistenceMode")),
        "ecc": _flag(_told(device, "nvmlDeviceGetCurrentEccMode")),
        "mig": _answer(device.is_mig),
        "superchip": _answer(device.is_superchip),
    }


@dataclass(frozen=True)
class State:
    """A GPU at one moment; None where it is not told. `event_reasons` are the bits of what sets its clocks."""

    temperature_c: int | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    p_state: int | None
    event_reasons: int | None


def read_state(device: Device) -> State:
    """Return the state now.

    Raises:
        Unavailable: the GPU is lost.
    """
    import pynvml

    p_state = _told(device, "nvmlDeviceGetPerformanceState")
    return State(
        temperature_c=_told(
            device, "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", argument=pynvml.NVML_TEMPERATURE_GPU
        ),
        sm_clock_mhz=_told(device, "nvmlDeviceGetClockInfo", argument=pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=_told(device, "nvmlDeviceGetClockInfo", argument=pynvml.NVML_CLOCK_MEM),
        p_state=None if p_state == pynvml.NVML_PSTATE_UNKNOWN else p_state,
        event_reasons=_told(
            device, "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
        ),
    )


@dataclass(frozen=True)
class Usage:
    """How much of a GPU is in use at one moment; None where it is not told.

    `utilisation`: share, 0 to 1, of the driver's last sample period (up to 1 s) in which a kernel ran.
    """

    utilisation: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    power_limit_w: float | None


def read_usage(device: Device) -> Usage:
    """Return what is in use now, by all processes.

    Raises:
        Unavailable: the GPU is lost.
    """
    rates, memory = _told(device, "nvmlDeviceGetUtilizationRates"), _told(device, "nvmlDeviceGetMemoryInfo")
    return Usage(
        utilisation=None if rates is None else rates.gpu / 100,
        memory_used_bytes=None if memory is None else memory.used,
        memory_total_bytes=None if memory is None else memory.total,
        power_limit_w=_watts(_told(device, "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")),
    )


def summarise(states: Sequence[State]) -> dict[str, Any]:
    """Return what a series of states, in the order of time, comes to.

    `throttled` are shares, 0 to 1, of the samples that tell their reasons: not of time, which they are as far as the
    samples are evenly spaced. Several may hold at once, so they need not add up.
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
    """Return the processes other than `own_pid` (default: this one) that compute on the GPU; null: cannot be told.

    In a container many drivers give the host's numbers, of which one may be ours: so where ours is not among them,
    and one of them is of no process to be seen here, it cannot be told.

    Raises:
        Unavailable: the GPU is lost.
    """
    found = _processes(device)
    if found is None:
        return None
    pids, own = {process.pid for process in found}, os.getpid() if own_pid is None else own_pid
    if own not in pids and not all(Path(f"/proc/{pid}").exists() for pid in pids):
        return None
    return sorted(pids - {own})


def own_memory_mb(device: Device, own_pid: int | None = None) -> float:
    """Return what the process `own_pid` (default: this one) has allocated on the GPU, in MB (10^6 bytes).

    Raises:
        Unavailable: the driver does not tell, or not under this number, as in many containers; or the GPU is lost.
    """
    own = os.getpid() if own_pid is None else own_pid
    used = [process.usedGpuMemory for process in _processes(device) or () if process.pid == own]
    if not used:
        raise Unavailable(PROCESS_NOT_SEEN, f"process {own}")
    if used[0] is None:
        raise Unavailable("not_supported", "memory of processes")
    return float(used[0]) / 1e6


def _processes(device: Device) -> list[Any] | None:
    # The versions by name: without one, nvidia-ml-py's plain name raises what is no NVMLError.
    found: list[Any] | None = _told(
        device, "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"
    )
    return found


def _told(device: Device, *names: str, argument: int | None = None) -> Any:
    """Return what the first of these functions that answers does, or None."""
    import pynvml

    arguments = (device.handle,) if argument is None else (device.handle, argument)
    known = (getattr(pynvml, name, None) for name in names)  # older releases of nvidia-ml-py lack the newest
    answers = (_answer(function, *arguments) for function in known if function is not None)
    return next((answer for answer in answers if answer is not None), None)


def _answer(function: Callable[..., Any], *arguments: Any) -> Any:
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
    name = names.get(_told(device, "nvmlDeviceGetArchitecture"), f"{prefix}UNKNOWN")
    return None if name == f"{prefix}UNKNOWN" else name.removeprefix(prefix).lower()


def _watts(mw: int | None) -> float | None:
    return None if mw is None else mw / 1000


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _known(states: Sequence[State], read: Callable[[State], int | None]) -> list[int]:
    return [value for value in map(read, states) if value is not None]


def _spread(values: list[int]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "min": None, "max": None}
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
