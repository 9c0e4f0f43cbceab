"""What can be read of energy here: counters of joules and powers in watts, by component and device.

A source is in the list only if a reading succeeded; a component without one has its reason in `missing`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.meters import nvml, rapl
from toolchain.meters.nvml import Device, Unavailable

BOARD, MEMORY, PACKAGE, DRAM = "gpu_board", "gpu_memory", "cpu_package", "cpu_dram"
COMPONENTS = (BOARD, MEMORY, PACKAGE, DRAM)
"""`gpu_memory` is part of `gpu_board`, so it is shown and never added."""

COUNTER, INTEGRAL, RAPL = "nvml_counter", "nvml_power_integral", "rapl"


@dataclass(frozen=True)
class Source:
    """One thing to read, which raises `Unavailable` where it cannot: joules since some time, or watts."""

    component: str
    device: str
    method: str
    read: Callable[[], float]

    @property
    def is_counter(self) -> bool:
        """Whether it gives joules since some time, and not watts."""
        return self.method != INTEGRAL


@dataclass
class Inventory:
    """What can be read, the GPUs behind it, and for each component without a source why (code, detail)."""

    sources: list[Source] = field(default_factory=list)
    gpus: list[Device] = field(default_factory=list)
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)


@contextmanager
def open_sources(device: str | None = None, *, powercap: Path = rapl.ROOT) -> Iterator[Inventory]:
    """Yield what can be read, with the NVML session held open: without it a driver may unload and reset its counter.

    `device` is the one that is used, as cuda:1; the GPUs are else all that CUDA shows this process.
    """
    found = Inventory()
    with ExitStack() as stack:
        try:
            stack.enter_context(nvml.open_nvml())
            found.gpus = _chosen(device)
        except Unavailable as why:
            found.missing |= dict.fromkeys((BOARD, MEMORY), (why.reason, str(why)))
        for gpu in found.gpus:
            _add_gpu(found, gpu)
        _add_rapl(found, powercap)
        yield found


def _chosen(device: str | None) -> list[Device]:
    if device is None or ":" not in device:
        return nvml.visible_devices()
    return [nvml.visible_device(int(device.split(":")[1]))]


def _add_gpu(found: Inventory, gpu: Device) -> None:
    readers: tuple[tuple[str, str, Callable[[], float]], ...] = (
        (BOARD, COUNTER, lambda: gpu.energy_mj() / 1e3),
        (BOARD, INTEGRAL, lambda: gpu.power_mw() / 1e3),
        (MEMORY, INTEGRAL, lambda: gpu.memory_power_mw() / 1e3),
    )
    reasons: dict[str, tuple[str, str]] = {}
    for component, method, read in readers:
        try:
            _check_scope(gpu, method)
            read()
        except Unavailable as why:
            reasons[component] = (why.reason, str(why))
        else:
            found.sources.append(Source(component, gpu.uuid, method, read))
    measured = {source.component for source in found.sources if source.device == gpu.uuid}
    found.missing |= {component: why for component, why in reasons.items() if component not in measured}


def _check_scope(gpu: Device, method: str) -> None:
    """Refuse readings that are of more than the GPU that is used.

    Raises:
        Unavailable: of all of a GPU's slices, or of a module with its processor.
    """
    if gpu.is_mig():
        raise Unavailable(nvml.MIG, "readings are the whole GPU's, not the slice's")
    if method == COUNTER and gpu.is_superchip():
        raise Unavailable(nvml.MODULE_ONLY, "the counter is that of GPU and processor together")


def _add_rapl(found: Inventory, powercap: Path) -> None:
    zones, reason = rapl.find_zones(powercap)
    for zone in zones:
        found.sources.append(Source(zone.component, zone.name, RAPL, _joules_of(rapl.Counter(zone))))
    for component in (PACKAGE, DRAM):
        if not any(zone.component == component for zone in zones):
            found.missing[component] = (reason or rapl.ABSENT, f"no such zone below {powercap}")


def _joules_of(counter: rapl.Counter) -> Callable[[], float]:
    def read() -> float:
        try:
            counter.update()
        except (OSError, ValueError) as error:
            raise Unavailable(rapl.LOST, str(error)) from error
        return counter.joules

    return read
