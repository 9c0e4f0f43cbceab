"""NVML: what GPUs used, by the driver's energy counter and by instantaneous power.

The counter (millijoules since the driver was loaded) and the power are the whole board's; on a MIG device those of all
slices. That a library loads says nothing: Jetson's does and reads nothing, so what is available shows when it is read.
Calls and fields as nvml.h documents them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")

REASONS = {
    "UNINITIALIZED": "nvml_closed",
    "LIBRARY_NOT_FOUND": "no_nvml_library",
    "DRIVER_NOT_LOADED": "driver_not_loaded",
    "LIB_RM_VERSION_MISMATCH": "driver_mismatch",
    "FUNCTION_NOT_FOUND": "driver_too_old",
    "NOT_SUPPORTED": "not_supported",
    "NO_PERMISSION": "no_permission",
    "GPU_IS_LOST": "gpu_lost",
    "RESET_REQUIRED": "gpu_needs_reset",
    "UNKNOWN": "nvml_unknown",
}
"""NVML's error -> our reason code; others are nvml_<number>."""

NO_DEVICE, MIG, AMBIGUOUS = "no_device", "mig_shared", "ambiguous_index"
READS_ZERO, MODULE_ONLY = "reads_zero", "module_only"

ABSENT = ("driver_too_old", "not_supported", "nvml_2")
"""There is no such reading here; drivers from before a field call its number an invalid argument (2)."""


class Unavailable(Exception):  # noqa: N818  # not an error: a reading that cannot be had, and why
    """A reading cannot be had; `reason` is a code such as not_supported."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """Take the code, and what NVML said."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def call(function: Callable[..., Value], *arguments: Any) -> Value:
    """Return what a function of nvidia-ml-py gives.

    Raises:
        Unavailable: it raises an NVMLError.
    """
    import pynvml

    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        codes = {getattr(pynvml, f"NVML_ERROR_{name}"): reason for name, reason in REASONS.items()}
        raise Unavailable(codes.get(error.value, f"nvml_{error.value}"), str(error)) from error


@contextmanager
def open_nvml() -> Iterator[None]:
    """Hold an NVML session open: without one, the driver may unload between two readings and reset its counter.

    Raises:
        Unavailable: no package, no library, or no driver.
    """
    try:
        import pynvml
    except ImportError as error:
        raise Unavailable("no_nvml_package", str(error)) from error
    call(pynvml.nvmlInit)
    try:
        yield
    finally:
        with suppress(Unavailable):  # it may fail as the GPU did, and what was measured before is kept
            call(pynvml.nvmlShutdown)


def driver_versions() -> tuple[str, str]:
    """Return the driver's version and the CUDA version that it supports, such as 580.95.05 and 13.0.

    Raises:
        Unavailable: the driver does not say.
    """
    import pynvml

    cuda = call(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    return str(call(pynvml.nvmlSystemGetDriverVersion)), f"{cuda // 1000}.{cuda % 1000 // 10}"


@dataclass(frozen=True)
class Device:
    """One GPU, in an open session."""

    index: int
    uuid: str
    name: str
    handle: Any

    def energy_mj(self) -> int:
        """Return the counter, in millijoules; it falls only if the driver was loaded again or the GPU was reset.

        On a superchip it is the whole module's (see `is_superchip`).

        Raises:
            Unavailable: there is no counter (before Volta, some guests), or the GPU is lost.
        """
        import pynvml

        return int(call(pynvml.nvmlDeviceGetTotalEnergyConsumption, self.handle))

    def power_mw(self) -> int:
        """Return the board's power now, in milliwatts.

        The field is instantaneous on all architectures; nvmlDeviceGetPowerUsage, for drivers from before the field, is
        an average over 1 s from Ampere on.

        Raises:
            Unavailable: it has no sensor that can be read, it reads zero, or it reads the whole module (GPU and
                processor together) only.
        """
        import pynvml

        try:
            return self._power_field_mw(pynvml.NVML_FI_DEV_POWER_INSTANT, pynvml.NVML_POWER_SCOPE_GPU)
        except Unavailable as missing:
            if missing.reason not in ABSENT:
                raise
        if self.is_superchip():
            raise Unavailable(MODULE_ONLY, "the GPU's own power cannot be read")
        return _above_zero(call(pynvml.nvmlDeviceGetPowerUsage, self.handle))

    def memory_power_mw(self) -> int:
        """Return the power of the GPU's memory, in milliwatts: part of the board's, never to be added to it.

        Instantaneous, or else the driver's average over 1 s: the one that Hopper and Blackwell are known to give.

        Raises:
            Unavailable: it is not told, as before Hopper, or reads zero, as on some boards without it.
        """
        import pynvml

        missing = []
        for field in (pynvml.NVML_FI_DEV_POWER_INSTANT, pynvml.NVML_FI_DEV_POWER_AVERAGE):
            try:
                return self._power_field_mw(field, pynvml.NVML_POWER_SCOPE_MEMORY)
            except Unavailable as why:
                if why.reason not in (*ABSENT, READS_ZERO):
                    raise
                missing.append(why)
        raise max(missing, key=lambda why: why.reason == READS_ZERO)

    def _power_field_mw(self, field: int, scope: int) -> int:
        import pynvml

        def read() -> int:
            (found,) = pynvml.nvmlDeviceGetFieldValues(self.handle, [(field, scope)])
            if found.nvmlReturn != pynvml.NVML_SUCCESS:  # the call itself succeeds all the same
                raise pynvml.NVMLError(found.nvmlReturn)
            return int(found.value.uiVal)

        return _above_zero(call(read))

    def is_mig(self) -> bool:
        """Whether it is cut into slices, whose readings are all the whole GPU's.

        Raises:
            Unavailable: it does not say, though it can be.
        """
        import pynvml

        return self._has(lambda: pynvml.nvmlDeviceGetMigMode(self.handle)[0])

    def is_superchip(self) -> bool:
        """Whether GPU and processor are one module, as on Grace Hopper, whose counter is the module's.

        So Zeus found it (ml-energy/zeus, pull request 172), and tells it by the link between the two.

        Raises:
            Unavailable: it does not say, though it can be.
        """
        import pynvml

        return self._has(lambda: pynvml.nvmlDeviceGetC2cModeInfoV(self.handle).isC2cEnabled)

    def _has(self, feature: Callable[[], int]) -> bool:
        try:
            return bool(call(feature))
        except Unavailable as why:
            if why.reason not in ABSENT:
                raise
            return False  # what it knows nothing of it has not


def _above_zero(mw: int) -> int:
    if mw == 0:
        raise Unavailable(READS_ZERO, "0 mW")  # no board that runs uses none
    return mw


def all_devices() -> list[Device]:
    """Return every GPU, in NVML's order, which is that of the PCI bus.

    Raises:
        Unavailable: there is none.
    """
    import pynvml

    found = []
    for index in range(call(pynvml.nvmlDeviceGetCount)):
        handle = call(pynvml.nvmlDeviceGetHandleByIndex, index)
        uuid, name = call(pynvml.nvmlDeviceGetUUID, handle), call(pynvml.nvmlDeviceGetName, handle)
        found.append(Device(index, uuid, name, handle))
    if not found:
        raise Unavailable(NO_DEVICE)
    return found


def visible_devices(chosen: str | None = None, order: str | None = None) -> list[Device]:
    """Return the GPUs that CUDA shows this process, in CUDA's order.

    `chosen` and `order` are CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, by default the environment's. CUDA counts the
    fastest first unless told to go by the PCI bus, so among unlike GPUs an index does not say which one is meant.

    Raises:
        Unavailable: none is visible, an index could mean several, or a slice is meant.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES") if chosen is None else chosen
    devices = all_devices()
    if chosen is None:
        return devices
    numbered = _are_numbered(devices, order)
    found: list[Device] = []
    for part in map(str.strip, chosen.split(",")):
        if part.startswith("MIG-"):
            raise Unavailable(MIG, part)
        if part.isdecimal() and int(part) < len(devices) and not numbered:
            raise Unavailable(AMBIGUOUS, f"CUDA_VISIBLE_DEVICES={chosen}; set CUDA_DEVICE_ORDER=PCI_BUS_ID")
        matching = [one for one in devices if (part == str(one.index) or (part and one.uuid.startswith(part)))]
        if len(matching) != 1:
            break  # as CUDA does: what stands behind an invalid entry is not visible
        found += matching
    if not found:
        raise Unavailable(NO_DEVICE, f"CUDA_VISIBLE_DEVICES={chosen}")
    return found


def visible_device(number: int) -> Device:
    """Return the GPU that CUDA calls by this number in this process.

    Raises:
        Unavailable: it is not visible, the number could mean several, or a slice is meant.
    """
    devices = visible_devices()
    if number >= len(devices):
        raise Unavailable(NO_DEVICE, f"cuda:{number} of {len(devices)} that can be seen")
    if "CUDA_VISIBLE_DEVICES" not in os.environ and not _are_numbered(devices):
        raise Unavailable(AMBIGUOUS, f"cuda:{number} of unlike GPUs; set CUDA_DEVICE_ORDER=PCI_BUS_ID")
    return devices[number]


def _are_numbered(devices: list[Device], order: str | None = None) -> bool:
    """Whether CUDA's numbers are NVML's, or it does not matter which is meant."""
    order = os.environ.get("CUDA_DEVICE_ORDER", "") if order is None else order
    return order == "PCI_BUS_ID" or len({device.name for device in devices}) == 1
