"""Readings of the GPUs for the page /metrics.

They are utilisation, memory and power at the moment, and the energy since the service started.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from toolchain.meters.gpu_state import Usage, read_usage
from toolchain.meters.nvml import Device, Unavailable
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, Inventory, Source, open_sources

T = TypeVar("T")

NO_USAGE = Usage(None, None, None, None)


@dataclass(frozen=True)
class GpuReading:
    """The readings of one GPU at one moment; a value that cannot be read is None."""

    uuid: str
    usage: Usage
    power_w: float | None
    # Energy of the board since the service started, in joules.
    energy_j: float | None


class Gpus:
    """GPUs in an open NVML session. `read` may be called from any thread."""

    def __init__(self, inventory: Inventory) -> None:
        """Take the GPUs of an open NVML session, and start to count their energy now."""
        self._lock = threading.Lock()
        self._devices = inventory.gpus
        boards = [source for source in inventory.sources if source.component == BOARD]
        self._powers = {source.device: source for source in boards if source.method == INTEGRAL}
        self._energies = {source.device: _EnergyCounter(source) for source in boards if source.method == COUNTER}

    def read(self) -> list[GpuReading]:
        """Return a reading of each GPU."""
        with self._lock:  # `used_j` compares a counter with its last value and stores the new one
            return [self._read(device) for device in self._devices]

    def _read(self, device: Device) -> GpuReading:
        power, energy = self._powers.get(device.uuid), self._energies.get(device.uuid)
        return GpuReading(
            device.uuid,
            _unless_unavailable(lambda: read_usage(device)) or NO_USAGE,
            None if power is None else _unless_unavailable(power.read),
            None if energy is None else energy.used_j(),
        )


class _EnergyCounter:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._start_j = self._last_j = _unless_unavailable(source.read)

    def used_j(self) -> float | None:
        """Return the energy since the start, in joules.

        Return None until the counter has advanced, if it cannot be read, and always after it was reset.
        """
        now_j = _unless_unavailable(self._source.read)
        if now_j is None or self._last_j is None or self._start_j is None:
            return None
        if now_j < self._last_j:
            self._last_j = None
            return None
        self._last_j = now_j
        return now_j - self._start_j or None


def _unless_unavailable(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Unavailable:
        return None


@contextmanager
def open_gpus(device: str) -> Iterator[Gpus]:
    """Open NVML and yield the GPU `device`, such as cuda:1, or all visible GPUs if the device is the CPU.

    Without NVML, the yielded object has no GPUs. For a GPU that is divided by MIG, power and energy are None, because
    the values of the board would include the slices of other users.
    """
    with open_sources(device) as inventory:
        yield Gpus(inventory)
