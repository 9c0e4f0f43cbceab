"""The settings of a GPU that its clock follows: the lock of its SM clock, and its power limit.

NVML sets both for an administrator (CAP_SYS_ADMIN) alone, and for every process on the GPU. It reports the power limit;
it does not report a lock, so a lock is known only to whoever set it. Functions are as nvml.h documents them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolchain.meters.nvml import Device, Unavailable, call

# The number of CAP_SYS_ADMIN (linux/capability.h), which NVIDIA's driver asks for.
ADMINISTRATOR = 21

# A setting that cannot be put back is tried again, because a busy driver may refuse a call.
TRIES = 3


@dataclass(frozen=True)
class Settings:
    """The settings of one GPU.

    Attributes:
        locked_mhz: lowest and highest SM clock of the lock; None: the clock is not locked.
        power_limit_mw: power limit; None where the board lacks one that can be set.
    """

    locked_mhz: tuple[int, int] | None
    power_limit_mw: int | None


def supported_clocks(device: Device) -> list[int]:
    """Return the SM clocks that can be locked at the highest memory clock, which a load runs at, in MHz, rising.

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
    """Return the lowest and the highest power limit in mW, or None where the board lacks one that can be set."""
    import pynvml

    try:
        low, high = call(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, device.handle)
    except Unavailable:
        return None
    return int(low), int(high)


def read_settings(device: Device, locked_mhz: tuple[int, int] | None = None) -> Settings:
    """Return the present settings of a GPU.

    NVML does not report a lock of the clock, so the caller gives the one that it has set as `locked_mhz`.
    """
    import pynvml

    try:
        limit: int | None = int(call(pynvml.nvmlDeviceGetPowerManagementLimit, device.handle))
    except Unavailable:
        limit = None
    return Settings(locked_mhz, limit)


def is_virtual(device: Device) -> bool:
    """Return whether other virtual machines share the GPU (vGPU), on the host or in one of them."""
    import pynvml

    try:
        mode = call(pynvml.nvmlDeviceGetVirtualizationMode, device.handle)
    except Unavailable:
        return False  # a driver without virtual GPUs
    return mode not in (pynvml.NVML_GPU_VIRTUALIZATION_MODE_NONE, pynvml.NVML_GPU_VIRTUALIZATION_MODE_PASSTHROUGH)


def is_administrator(status: Path = Path("/proc/self/status")) -> bool:
    """Return whether this process has CAP_SYS_ADMIN, which root in a container usually lacks (proc(5))."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> ADMINISTRATOR & 1)


def change(device: Device, settings: Settings) -> None:
    """Set the power limit, if it is another one, and the lock of the SM clock.

    Raises:
        Unavailable: NVML refused one of them; the other may be set.
    """
    _set_limit(device, settings)
    _set_lock(device, settings)


def put_back(device: Device, settings: Settings) -> str | None:
    """Set both settings, each also if the other fails; return why that failed, or None if it did not."""
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
