"""NVML: energy and power of GPUs, and which GPUs this process can use.

The energy counter (millijoules since the driver was loaded) and the power are those of the whole board; on a GPU with
MIG, those of all slices together. Even if the library loads, readings may fail, as on Jetson. So a reading counts as
available only once it has succeeded.
Calls and fields are as nvml.h documents them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")

# Name of an NVML error -> reason code. Other errors get the code nvml_<number>.
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

NO_DEVICE, MIG, AMBIGUOUS = "no_device", "mig_shared", "ambiguous_index"
READS_ZERO, MODULE_ONLY = "reads_zero", "module_only"

# Reason codes which mean that this driver or GPU lacks the reading. A driver that is older than a field rejects the
# field's number as an invalid argument, NVML error 2.
ABSENT = ("driver_too_old", "not_supported", "nvml_2")


class Unavailable(Exception):  # noqa: N818  # not an error of ours: the machine lacks a reading
    """A reading is not available; `reason` is a code such as not_supported."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """Store the reason code. `detail` is the message of NVML or of the system."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def call(function: Callable[..., Value], *arguments: Any) -> Value:
    """Call a function of nvidia-ml-py and return its value.

    Raises:
        Unavailable: the function raised an NVMLError.
    """
    import pynvml

    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        codes = {getattr(pynvml, f"NVML_ERROR_{name}"): reason for name, reason in REASONS.items()}
        raise Unavailable(codes.get(error.value, f"nvml_{error.value}"), str(error)) from error


@contextmanager
def open_nvml() -> Iterator[None]:
    """Keep an NVML session open. Without one, the driver may unload between two readings and reset its counter.

    Raises:
        Unavailable: the package, the library or the driver is missing.
    """
    try:
        import pynvml
    except ImportError as error:
        raise Unavailable("no_nvml_package", str(error)) from error
    call(pynvml.nvmlInit)
    try:
        yield
    finally:
        with suppress(Unavailable):  # it may fail if the GPU failed, but earlier readings are still valid
            call(pynvml.nvmlShutdown)


def driver_versions() -> tuple[str, str]:
    """Return the driver's version and the CUDA version that it supports, such as 580.95.05 and 13.0.

    Raises:
        Unavailable: the driver does not report them.
    """
    import pynvml

    cuda = call(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    return str(call(pynvml.nvmlSystemGetDriverVersion)), f"{cuda // 1000}.{cuda % 1000 // 10}"


@dataclass(frozen=True)
class Device:
    """One GPU, in an open NVML session. `index` is its number in NVML, which may differ from CUDA's."""

    index: int
    uuid: str
    name: str
    handle: Any

    def energy_mj(self) -> int:
        """Return the energy counter in millijoules. It falls only if the driver was reloaded or the GPU was reset.

        On a superchip the counter covers the whole module (see `is_superchip`).

        Raises:
            Unavailable: the GPU lacks a counter (before Volta, and in some virtual machines), or is lost.
        """
        import pynvml

        return int(call(pynvml.nvmlDeviceGetTotalEnergyConsumption, self.handle))

    def power_mw(self) -> int:
        """Return the present power of the board in milliwatts.

        NVML's field for it is instantaneous on all architectures. With a driver that lacks the field, the value comes
        from nvmlDeviceGetPowerUsage, which is an average over 1 s from Ampere on.

        Raises:
            Unavailable: the board lacks a readable sensor, the sensor reads zero, or it measures GPU and processor
                together.
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
        """Return the power of the GPU's memory in milliwatts. It is part of the board's power.

        The value is instantaneous if the driver reports it; otherwise it is the driver's average over 1 s, which Hopper
        and Blackwell are known to report.

        Raises:
            Unavailable: the driver does not report the power, as before Hopper, or reports zero, as some boards
                without a sensor do.
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
            if found.nvmlReturn != pynvml.NVML_SUCCESS:  # the call succeeds even if reading the field failed
                raise pynvml.NVMLError(found.nvmlReturn)
            return int(found.value.uiVal)

        return _above_zero(call(read))

    def is_mig(self) -> bool:
        """Return whether the GPU is divided into MIG slices, so that its readings cover all slices together.

        Raises:
            Unavailable: the GPU supports MIG, but its mode cannot be read.
        """
        import pynvml

        return self._has(lambda: pynvml.nvmlDeviceGetMigMode(self.handle)[0])

    def is_superchip(self) -> bool:
        """Return whether GPU and processor are one module, as on Grace Hopper, whose counter covers both.

        They form one module if the chip-to-chip link (C2C) between them is enabled. Source: ml-energy/zeus, pull
        request 172.

        Raises:
            Unavailable: the driver supports the query, but the state of the link cannot be read.
        """
        import pynvml

        return self._has(lambda: pynvml.nvmlDeviceGetC2cModeInfoV(self.handle).isC2cEnabled)

    def _has(self, feature: Callable[[], int]) -> bool:
        try:
            return bool(call(feature))
        except Unavailable as why:
            if why.reason not in ABSENT:
                raise
            return False  # a driver or GPU that does not know the query lacks the feature


def _above_zero(mw: int) -> int:
    if mw == 0:
        raise Unavailable(READS_ZERO, "0 mW")  # a running board always draws power, so the reading is wrong
    return mw


def all_devices() -> list[Device]:
    """Return every GPU of the machine, in NVML's order, which is the order of the PCI bus.

    Raises:
        Unavailable: there is no GPU.
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
    """Return the GPUs that CUDA shows to this process, in CUDA's order.

    CUDA numbers the fastest GPU first unless CUDA_DEVICE_ORDER is PCI_BUS_ID. So if the GPUs of the machine differ, it
    is not known which GPU a number means.

    Args:
        chosen: value of CUDA_VISIBLE_DEVICES; None for the one in the environment.
        order: value of CUDA_DEVICE_ORDER; None for the one in the environment.

    Raises:
        Unavailable: no GPU is visible, a number is ambiguous, or `chosen` names a MIG slice.
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
            break  # as in CUDA: entries after an invalid one are not visible
        found += matching
    if not found:
        raise Unavailable(NO_DEVICE, f"CUDA_VISIBLE_DEVICES={chosen}")
    return found


def visible_device(number: int) -> Device:
    """Return the GPU with this CUDA number in this process, such as 1 for cuda:1.

    Raises:
        Unavailable: no such GPU is visible, the number is ambiguous, or CUDA_VISIBLE_DEVICES names a MIG slice.
    """
    devices = visible_devices()
    if number >= len(devices):
        raise Unavailable(NO_DEVICE, f"there is no cuda:{number}; the number of visible GPUs is {len(devices)}")
    if "CUDA_VISIBLE_DEVICES" not in os.environ and not _are_numbered(devices):
        raise Unavailable(
            AMBIGUOUS, f"the GPUs differ, so cuda:{number} is ambiguous; set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return devices[number]


def _are_numbered(devices: list[Device], order: str | None = None) -> bool:
    """Return whether CUDA's numbers mean the same GPUs as NVML's, or all GPUs are of one model."""
    order = os.environ.get("CUDA_DEVICE_ORDER", "") if order is None else order
    return order == "PCI_BUS_ID" or len({device.name for device in devices}) == 1
