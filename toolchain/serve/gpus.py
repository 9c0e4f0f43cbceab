"""The GPUs that a service runs on, or could: what they use now, and the energy since it started."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from toolchain.meters.gpu_state import Usage, read_usage
from toolchain.meters.nvml import Device, Unavailable
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, Inventory, Source, open_sources

NO_USAGE = Usage(None, None, None, None)


@dataclass(frozen=True)
class Reading:
    """One GPU at one moment; None where it cannot be had. `energy_j` is the board's since the service started."""

    uuid: str
    usage: Usage
    power_w: float | None
    energy_j: float | None


class Gpus:
    """GPUs in an open NVML session; `read` may be called from any thread."""

    def __init__(self, inventory: Inventory) -> None:
        """Begin to count energy now."""
        self._lock = threading.Lock()
        self._devices = inventory.gpus
        boards = [source for source in inventory.sources if source.component == BOARD]
        self._powers = {source.device: source for source in boards if source.method == INTEGRAL}
        self._counters = {source.device: _Counter(source) for source in boards if source.method == COUNTER}

    def read(self) -> list[Reading]:
        """Return what each GPU uses now."""
        with self._lock:  # a counter compares with what it read last
            return [self._read(device) for device in self._devices]

    def _read(self, device: Device) -> Reading:
        power, counter = self._powers.get(device.uuid), self._counters.get(device.uuid)
        return Reading(
            device.uuid,
            _usage(device),
            None if power is None else _value(power),
            None if counter is None else counter.used_j(),
        )


class _Counter:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._start_j = self._last_j = _value(source)

    def used_j(self) -> float | None:
        """Return joules since the start; None before the counter has moved, and for ever once it was reset."""
        now_j = _value(self._source)
        if now_j is None or self._last_j is None or self._start_j is None:
            return None
        if now_j < self._last_j:
            self._last_j = None
            return None
        self._last_j = now_j
        return now_j - self._start_j or None


def _value(source: Source) -> float | None:
    try:
        return source.read()
    except Unavailable:
        return None


def _usage(device: Device) -> Usage:
    try:
        return read_usage(device)
    except Unavailable:
        return NO_USAGE


@contextmanager
def open_gpus(device: str) -> Iterator[Gpus]:
    """Hold NVML open and yield the GPU that is used, as cuda:1, or all that can be seen where it is the cpu.

    Without NVML there are none; of one that is cut into slices, power and energy are not told, as they are all slices'.
    """
    with open_sources(device) as inventory:
        yield Gpus(inventory)
