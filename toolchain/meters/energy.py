"""The energy meter: polls every source of energy readings, and measures windows between ticks of the slowest counter.

A tick is a moment at which a counter moves. The meter does not depend on the work that it measures. Tests pass in their
own clock and sleep.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.meters import gpu_state, rapl
from toolchain.meters.nvml import Unavailable
from toolchain.meters.readings import STUCK, Readings
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, Inventory, open_sources
from toolchain.records.energy import GpuStates

# Interval between readings in seconds: half the update period of the slowest sensors, which is 100 ms.
POLL_S = 0.05

# Interval between readings in seconds while the meter waits for a tick. A window's edge can be late by this much.
TICK_POLL_S = 0.001

# A counter that does not move for this many seconds counts as stuck. The slowest known ticks take 100 ms.
EDGE_LIMIT_S = 2.0

# Number of ticks from which the update period of a counter is found, as the median of their intervals.
TICKS = 10

# Interval in seconds between readings of temperature and clocks, which change slowly.
STATE_S = 1.0


class Cancelled(Exception):  # noqa: N818  # not an error: the measured work has ended
    """The measurement was cancelled by another thread, which called `EnergyMeter.cancel`."""


Key = tuple[str, str]  # component, and UUID of a GPU or name of a RAPL zone


@dataclass(frozen=True)
class Window:
    """Joules between two moments of the meter's clock, or the reason why they are unknown.

    Attributes:
        opened_s: start, by the meter's clock.
        closed_s: end, by the meter's clock.
        joules: (component, device) -> joules.
        reasons: (component, device) without joules -> reason code.
        integral_j: UUID of a GPU -> its integrated power in joules, to compare with the counter's joules.
        peak_w: UUID of a GPU -> highest power that was read, in watts.
        states: UUID of a GPU -> summary of its temperature, clocks and throttling.
    """

    opened_s: float
    closed_s: float
    joules: dict[Key, float]
    reasons: dict[Key, str]
    integral_j: dict[str, float]
    peak_w: dict[str, float]
    states: dict[str, GpuStates]

    @property
    def seconds(self) -> float:
        """Length of the window in seconds."""
        return self.closed_s - self.opened_s

    def component_j(self, component: str) -> float | None:
        """Return the sum of the joules of a component's devices; None if the joules of a device are unknown."""
        if any(key[0] == component for key in self.reasons):
            return None
        found = [value for key, value in self.joules.items() if key[0] == component]
        return sum(found) if found else None

    def reason(self, component: str) -> str | None:
        """Return the reason code why the joules of a component are unknown, or None if they are known."""
        return next((reason for key, reason in self.reasons.items() if key[0] == component), None)


@dataclass
class EnergyMeter:
    """Measures energy by reading the sources of an inventory.

    Attributes:
        inventory: sources and GPUs, from `open_sources`.
        clock: returns the time in seconds; it must never go back.
        sleep: sleeps for a number of seconds.
        readings: (component, device) -> readings that its joules are computed from.
        powers: UUID of a GPU -> readings of its power.
        states: UUID of a GPU -> states of the GPU, each with its time.
        cancelled: whether `cancel` was called, and `rest` has not raised `Cancelled` yet.
    """

    inventory: Inventory
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    readings: dict[Key, Readings] = field(init=False)
    powers: dict[str, Readings] = field(init=False)
    states: dict[str, list[tuple[float, gpu_state.State]]] = field(init=False)
    cancelled: bool = False

    def __post_init__(self) -> None:
        readings = [Readings(source) for source in self.inventory.sources]
        self.powers = {
            one.source.device: one for one in readings if (one.source.component, one.source.method) == (BOARD, INTEGRAL)
        }
        self.states = {gpu.uuid: [] for gpu in self.inventory.gpus}
        self.readings = {}
        for one in readings:  # the inventory lists a GPU's counter before its power, so the counter is preferred
            self.readings.setdefault((one.source.component, one.source.device), one)
        self._find_periods()

    @property
    def missing(self) -> dict[str, tuple[str, str]]:
        """Component -> reason code and detail, for every component or device that cannot be measured."""
        return self.inventory.missing

    @property
    def components(self) -> set[str]:
        """The components that have at least one source."""
        return {component for component, _ in self.readings}

    @property
    def tick_s(self) -> float:
        """The update period of the slowest counter in seconds; 0 if there are no counters."""
        return max((one.tick_s or 0.0 for one in self._counters()), default=0.0)

    def _counters(self) -> list[Readings]:
        return [one for one in self.readings.values() if one.source.is_counter]

    def _find_periods(self) -> None:
        """Measure the update period of every counter, and replace a counter that does not move.

        The joules of a GPU then come from its power. A RAPL zone becomes missing.
        """
        limit_s = self.clock() + EDGE_LIMIT_S
        while any(len(one.times_s) <= TICKS for one in self._counters()) and self.clock() < limit_s:
            self._read(self._counters())
            self.rest(TICK_POLL_S)
        for key, one in list(self.readings.items()):
            one.find_tick()
            if one.source.is_counter and one.tick_s is None:
                reason = one.faults[-1][1] if one.faults else STUCK
                self._replace(key, reason)

    def _replace(self, key: Key, reason: str) -> None:
        component, device = key
        if self.readings.pop(key).source.method == COUNTER and device in self.powers:
            self.readings[key] = self.powers[device]
        else:
            self.missing[component] = (reason, device)

    def _read(self, readings: list[Readings]) -> None:
        for one in readings:
            one.poll(self.clock())

    def poll(self) -> None:
        """Read every source once. Read temperatures and clocks too, if their last reading is at least a second old."""
        self._read(list({id(one): one for one in (*self.readings.values(), *self.powers.values())}.values()))
        for gpu in self.inventory.gpus:
            kept, now = self.states[gpu.uuid], self.clock()
            if not kept or now - kept[-1][0] >= STATE_S:
                try:
                    kept.append((now, gpu_state.read_state(gpu)))
                except Unavailable:
                    continue  # the fault shows in the readings of this GPU's sources

    def cancel(self) -> None:
        """End a measurement that runs in another thread: its next `rest` raises `Cancelled`."""
        self.cancelled = True

    def rest(self, seconds: float) -> None:
        """Sleep for this many seconds.

        Raises:
            Cancelled: `cancel` was called.
        """
        if self.cancelled:
            self.cancelled = False
            raise Cancelled
        self.sleep(seconds)

    def watch(self, until: Callable[[], bool]) -> None:
        """Poll every POLL_S seconds until `until` returns true."""
        self.poll()
        while not until():
            self.rest(POLL_S)
            self.poll()

    def wait(self, seconds: float) -> None:
        """Poll the sources for this many seconds."""
        end_s = self.clock() + seconds
        self.watch(lambda: self.clock() >= end_s)

    def edge(self) -> float:
        """Wait for a tick of the slowest counter and return its time. Without counters, return the present time.

        Every other counter is read until it has ticked before that time and again after it, so that its joules at that
        time can be interpolated.
        """
        self.poll()
        counters = sorted(self._counters(), key=lambda one: one.tick_s or 0.0)
        slowest, others = counters[-1:], counters[:-1]
        self._await_ticks(others)
        start_s = self._await_ticks(slowest)
        edge_s = max((one.last_tick_s for one in slowest if one.last_tick_s > start_s), default=self.clock())
        self._await_ticks(others)
        self.poll()
        return edge_s

    def _await_ticks(self, readings: list[Readings]) -> float:
        """Read all counters every `TICK_POLL_S` until each of `readings` has ticked; return the time of the call.

        A counter whose reading fails is not awaited. Waiting ends after EDGE_LIMIT_S seconds in any case.
        """
        start_s = self.clock()
        while self.clock() < start_s + EDGE_LIMIT_S and any(
            one.last_tick_s <= start_s and not (one.faults and one.faults[-1][0] > start_s) for one in readings
        ):
            self.rest(TICK_POLL_S)
            self._read(self._counters())
        return start_s

    def window(self, seconds: float, *, enough: Callable[[float], bool] = lambda opened_s: True) -> Window:
        """Measure a window from one tick of the slowest counter to a later one.

        Args:
            seconds: least length of the window.
            enough: a function of the time of the first tick. The window stays open until the function returns true.
        """
        opened_s = self.edge()
        self.watch(lambda: self.clock() - opened_s >= seconds and enough(opened_s))
        return self.between(opened_s, self.edge())

    def between(self, opened_s: float, closed_s: float) -> Window:
        """Return the window between two moments, both of which must lie within the time that the readings cover."""
        joules: dict[Key, float] = {}
        reasons: dict[Key, str] = {}
        for key, one in self.readings.items():
            try:
                joules[key] = one.joules(opened_s, closed_s)
            except Unavailable as why:
                reasons[key] = why.reason
        integrals: dict[str, float] = {}
        for uuid, one in self.powers.items():
            try:
                integrals[uuid] = one.joules(opened_s, closed_s)
            except Unavailable:
                continue
        peaks = {uuid: one.peak(opened_s, closed_s) for uuid, one in self.powers.items()}
        return Window(
            opened_s,
            closed_s,
            joules,
            reasons,
            integrals,
            peak_w={uuid: peak for uuid, peak in peaks.items() if peak is not None},
            states={
                uuid: gpu_state.summarise([state for when, state in kept if opened_s <= when <= closed_s])
                for uuid, kept in self.states.items()
            },
        )


@contextmanager
def open_meter(
    device: str | None = None,
    *,
    powercap: Path = rapl.ROOT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[EnergyMeter]:
    """Yield a meter of every source that this machine can read. `open_sources` explains `device` and `powercap`."""
    with open_sources(device, powercap=powercap) as inventory:
        yield EnergyMeter(inventory, clock, sleep)
