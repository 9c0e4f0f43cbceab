"""The sources of energy readings on this machine: counters in joules and sensors in watts, by component and device.

A source is in the inventory only if a first reading succeeded. For a component without a source, `missing` has the
reason.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.base.progress import still
from toolchain.meters import nvml, rapl
from toolchain.meters.nvml import Device, Unavailable
from toolchain.records.energy import Method

# The energy of `gpu_memory` is included in `gpu_board`, so it is shown but never added to a total.
BOARD, MEMORY, PACKAGE, DRAM = "gpu_board", "gpu_memory", "cpu_package", "cpu_dram"
COMPONENTS = (BOARD, MEMORY, PACKAGE, DRAM)

COUNTER: Method = "nvml_counter"
INTEGRAL: Method = "nvml_power_integral"
RAPL: Method = "rapl"


@dataclass(frozen=True)
class Source:
    """One energy counter or power sensor of a device.

    Attributes:
        component: one of `COMPONENTS`.
        device: UUID of a GPU, or name of a RAPL zone.
        method: how it is read: COUNTER, INTEGRAL or RAPL.
        read: returns joules since a fixed moment for a counter, watts for a sensor; raises `Unavailable` if it fails.
    """

    component: str
    device: str
    method: Method
    read: Callable[[], float]

    @property
    def is_counter(self) -> bool:
        """Whether the source is a counter, which returns joules, and not a sensor, which returns watts."""
        return self.method != INTEGRAL


@dataclass
class Inventory:
    """The sources of energy readings on this machine.

    Attributes:
        sources: counters and sensors from which a first reading succeeded.
        gpus: the GPUs to read, including those without a source.
        missing: component -> reason code and detail, if the component or one of its devices lacks a source.
    """

    sources: list[Source] = field(default_factory=list)
    gpus: list[Device] = field(default_factory=list)
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)


@contextmanager
def open_sources(device: str | None = None, *, powercap: Path = rapl.ROOT) -> Iterator[Inventory]:
    """Yield the sources of this machine. Within the context, an NVML session stays open and no progress line is drawn.

    Without an open session the driver may unload and reset its counter.

    Args:
        device: the GPUs to read, by number, such as cuda:1 or cuda:0,1; without numbers or if None, every GPU that CUDA
            shows to this process.
        powercap: folder of the RAPL zones.
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
        stack.enter_context(still())
        yield found


def _chosen(device: str | None) -> list[Device]:
    if device is None or ":" not in device:
        return nvml.visible_devices()
    return [nvml.visible_device(int(number)) for number in device.split(":")[1].split(",")]


def _add_gpu(found: Inventory, gpu: Device) -> None:
    readers: tuple[tuple[str, Method, Callable[[], float]], ...] = (
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
    """Refuse readings that cover more than the GPU in use.

    Raises:
        Unavailable: the readings cover all MIG slices of the GPU, or the counter covers GPU and processor together.
    """
    if gpu.is_mig():
        raise Unavailable(nvml.MIG, "the readings cover the whole GPU, not the slice")
    if method == COUNTER and gpu.is_superchip():
        raise Unavailable(nvml.MODULE_ONLY, "the counter covers GPU and processor together")


def _add_rapl(found: Inventory, powercap: Path) -> None:
    zones, reason = rapl.find_zones(powercap)
    for zone in zones:
        found.sources.append(Source(zone.component, zone.name, RAPL, _joules_of(rapl.Counter(zone))))
    for component in (PACKAGE, DRAM):
        if not any(zone.component == component for zone in zones):
            found.missing[component] = (
                reason or rapl.ABSENT,
                f"there is no RAPL zone for {component} below {powercap}",
            )


def _joules_of(counter: rapl.Counter) -> Callable[[], float]:
    def read() -> float:
        try:
            counter.update()
        except (OSError, ValueError) as error:
            raise Unavailable(rapl.LOST, str(error)) from error
        return counter.joules

    return read
