"""The settings of a GPU that determine its clock: the lock of its SM clock, and its power limit.

Only an administrator (CAP_SYS_ADMIN) can change them through NVML, and a change applies to every process on the GPU.
NVML reports the power limit but not the lock, so callers must remember a lock that they set. Functions are as nvml.h
documents them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolchain.meters.nvml import Device, Unavailable, call

# Bit of the capability CAP_SYS_ADMIN (linux/capability.h), which NVIDIA's driver requires for a change of settings.
ADMINISTRATOR = 21

# Number of attempts to put a setting back. One may fail, because a busy driver may refuse a call.
TRIES = 3


@dataclass(frozen=True)
class Settings:
    """The clock lock and the power limit of one GPU.

    Attributes:
        locked_mhz: lowest and highest SM clock that the lock allows, MHz; None if the clock is not locked.
        power_limit_mw: power limit, mW; None if NVML does not report one.
    """

    locked_mhz: tuple[int, int] | None
    power_limit_mw: int | None


def supported_clocks(device: Device) -> list[int]:
    """Return the SM clocks that can be locked, in MHz, ascending.

    These are the SM clocks at the highest memory clock, which the GPU uses under load.

    Raises:
        Unavailable: the GPU does not report them.
    """
    import pynvml

    memory = call(pynvml.nvmlDeviceGetSupportedMemoryClocks, device.handle)
    found = call(pynvml.nvmlDeviceGetSupportedGraphicsClocks, device.handle, max(memory)) if memory else []
    if not found:
        raise Unavailable("not_supported", "supported clocks")
    return sorted(found)


def power_limits(device: Device) -> tuple[int, int] | None:
    """Return the lowest and the highest power limit that can be set, in mW, or None if none can be set."""
    import pynvml

    try:
        low, high = call(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, device.handle)
    except Unavailable:
        return None
    return int(low), int(high)


def read_settings(device: Device, locked_mhz: tuple[int, int] | None = None) -> Settings:
    """Return the present settings of a GPU.

    NVML does not report a lock of the clock, so the caller passes the lock that it has set as `locked_mhz`.
    """
    import pynvml

    try:
        limit: int | None = int(call(pynvml.nvmlDeviceGetPowerManagementLimit, device.handle))
    except Unavailable:
        limit = None
    return Settings(locked_mhz, limit)


def is_virtual(device: Device) -> bool:
    """Return whether virtual machines share the GPU (vGPU). The process may run on their host or in one of them."""
    import pynvml

    try:
        mode = call(pynvml.nvmlDeviceGetVirtualizationMode, device.handle)
    except Unavailable:
        return False  # the driver does not support virtual GPUs
    return mode not in (pynvml.NVML_GPU_VIRTUALIZATION_MODE_NONE, pynvml.NVML_GPU_VIRTUALIZATION_MODE_PASSTHROUGH)


def is_administrator(status: Path = Path("/proc/self/status")) -> bool:
    """Return whether this process has CAP_SYS_ADMIN, which root in a container usually lacks; see proc(5)."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> ADMINISTRATOR & 1)


def change(device: Device, settings: Settings) -> None:
    """Set the power limit, if it differs from the present one, and the lock of the SM clock.

    Raises:
        Unavailable: NVML refused one of the two; the other may have been set.
    """
    _set_limit(device, settings)
    _set_lock(device, settings)


def put_back(device: Device, settings: Settings) -> str | None:
    """Set power limit and lock, each even if the other fails; return what failed as text, or None if both were set."""
    faults = [_tried(lambda: _set_limit(device, settings)), _tried(lambda: _set_lock(device, settings))]
    return "; ".join(fault for fault in faults if fault) or None


def _tried(work: Callable[[], None]) -> str | None:
    fault = None
    for _ in range(TRIES):
        try:
            work()
        except Unavailable as why:
            fault = str(why)
        else:
            return None
    return fault


def _set_limit(device: Device, settings: Settings) -> None:
    import pynvml

    if settings.power_limit_mw is not None and read_settings(device).power_limit_mw != settings.power_limit_mw:
        call(pynvml.nvmlDeviceSetPowerManagementLimit, device.handle, settings.power_limit_mw)


def _set_lock(device: Device, settings: Settings) -> None:
    import pynvml

    if settings.locked_mhz is None:
        call(pynvml.nvmlDeviceResetGpuLockedClocks, device.handle)
    else:
        call(pynvml.nvmlDeviceSetGpuLockedClocks, device.handle, *settings.locked_mhz)
