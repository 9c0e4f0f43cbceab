"""The energy meter: polls every source, and measures windows that begin and end on ticks of the slowest counter.

What runs meanwhile is no concern of it. Its clock and its sleep are handed in, so that a test can have its own.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.meters import gpu_state, rapl
from toolchain.meters.nvml import Unavailable
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, Inventory, open_sources
from toolchain.meters.track import STUCK, Track

POLL_S = 0.05
"""Between readings; twice as often as sensors that are published every 100 ms."""

HUNT_S = 0.001
"""Between readings while waiting for a tick: the error in time of a window's edge."""

EDGE_LIMIT_S = 2.0
"""A counter that has not moved for so long is stuck; the slowest known ticks take 100 ms."""

TICKS = 10
"""Whose median is the update period."""

STATE_S = 1.0
"""Between readings of temperature and clocks."""


class Cancelled(Exception):  # noqa: N818  # not an error: what was measured is over
    """The meter was told to stop."""


Key = tuple[str, str]
"""A component and a device."""


@dataclass(frozen=True)
class Window:
    """Joules by component and device between two moments of the meter's clock, or the reason for none.

    `integral_j` is the integral of a GPU's power beside its counter's joules, `peak_w` the largest power read.
    """

    opened_s: float
    closed_s: float
    joules: dict[Key, float]
    reasons: dict[Key, str]
    integral_j: dict[str, float]
    peak_w: dict[str, float]
    states: dict[str, dict[str, Any]]

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.closed_s - self.opened_s

    def component_j(self, component: str) -> float | None:
        """Return the joules of a component's devices together; None where one of them has none."""
        if any(key[0] == component for key in self.reasons):
            return None
        found = [value for key, value in self.joules.items() if key[0] == component]
        return sum(found) if found else None

    def reason(self, component: str) -> str | None:
        """Return why a component has no joules."""
        return next((reason for key, reason in self.reasons.items() if key[0] == component), None)


@dataclass
class EnergyMeter:
    """Measures what is in an inventory. `missing` has the reasons of what is not, also of what turned out stuck."""

    inventory: Inventory
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    tracks: dict[Key, Track] = field(init=False)
    powers: dict[str, Track] = field(init=False)
    states: dict[str, list[tuple[float, gpu_state.State]]] = field(init=False)
    cancelled: bool = False

    def __post_init__(self) -> None:
        tracks = [Track(source) for source in self.inventory.sources]
        self.powers = {
            track.source.device: track
            for track in tracks
            if (track.source.component, track.source.method) == (BOARD, INTEGRAL)
        }
        self.states = {gpu.uuid: [] for gpu in self.inventory.gpus}
        self.tracks = {}
        for track in tracks:  # a GPU's counter comes before its power, and is preferred
            self.tracks.setdefault((track.source.component, track.source.device), track)
        self._find_periods()

    @property
    def missing(self) -> dict[str, tuple[str, str]]:
        """Component -> reason code and detail."""
        return self.inventory.missing

    @property
    def components(self) -> set[str]:
        """What has at least one source."""
        return {component for component, _ in self.tracks}

    @property
    def tick_s(self) -> float:
        """The update period of the slowest counter, 0 without one."""
        return max((track.tick_s or 0.0 for track in self._counters()), default=0.0)

    def _counters(self) -> list[Track]:
        return [track for track in self.tracks.values() if track.source.is_counter]

    def _find_periods(self) -> None:
        """Watch every counter move; take a GPU's power instead of one that does not, and nothing instead of a zone."""
        limit_s = self.clock() + EDGE_LIMIT_S
        while any(len(track.times_s) <= TICKS for track in self._counters()) and self.clock() < limit_s:
            self._read(self._counters())
            self.rest(HUNT_S)
        for key, track in list(self.tracks.items()):
            track.find_tick()
            if track.source.is_counter and track.tick_s is None:
                reason = track.faults[-1][1] if track.faults else STUCK
                self._replace(key, reason)

    def _replace(self, key: Key, reason: str) -> None:
        component, device = key
        if self.tracks.pop(key).source.method == COUNTER and device in self.powers:
            self.tracks[key] = self.powers[device]
        else:
            self.missing[component] = (reason, device)

    def _read(self, tracks: list[Track]) -> None:
        for track in tracks:
            track.poll(self.clock())

    def poll(self) -> None:
        """Read everything once; temperatures and clocks if the last were a second ago."""
        self._read(list({id(track): track for track in (*self.tracks.values(), *self.powers.values())}.values()))
        for gpu in self.inventory.gpus:
            kept, now = self.states[gpu.uuid], self.clock()
            if not kept or now - kept[-1][0] >= STATE_S:
                try:
                    kept.append((now, gpu_state.read_state(gpu)))
                except Unavailable:
                    continue  # the sources say what is wrong with it

    def cancel(self) -> None:
        """End what another thread measures, with `Cancelled`."""
        self.cancelled = True

    def rest(self, seconds: float) -> None:
        """Sleep, unless cancelled."""
        if self.cancelled:
            self.cancelled = False
            raise Cancelled
        self.sleep(seconds)

    def watch(self, until: Callable[[], bool]) -> None:
        """Poll until told to stop."""
        self.poll()
        while not until():
            self.rest(POLL_S)
            self.poll()

    def wait(self, seconds: float) -> None:
        """Poll for so long."""
        end_s = self.clock() + seconds
        self.watch(lambda: self.clock() >= end_s)

    def edge(self) -> float:
        """Wait for a tick of the slowest counter between two of every other, and return it; without counters, now."""
        self.poll()
        counters = sorted(self._counters(), key=lambda track: track.tick_s or 0.0)
        slowest, others = counters[-1:], counters[:-1]
        self._hunt(others)
        start_s = self._hunt(slowest)
        edge_s = max((track.last_tick_s for track in slowest if track.last_tick_s > start_s), default=self.clock())
        self._hunt(others)
        self.poll()
        return edge_s

    def _hunt(self, tracks: list[Track]) -> float:
        """Wait until these have moved, reading all counters closely; return since when."""
        start_s = self.clock()
        while self.clock() < start_s + EDGE_LIMIT_S and any(
            track.last_tick_s <= start_s and not (track.faults and track.faults[-1][0] > start_s) for track in tracks
        ):
            self.rest(HUNT_S)
            self._read(self._counters())
        return start_s

    def window(self, seconds: float, *, enough: Callable[[float], bool] = lambda opened_s: True) -> Window:
        """Measure from a tick to a tick, at least so many seconds and until it is `enough` for what runs."""
        opened_s = self.edge()
        self.watch(lambda: self.clock() - opened_s >= seconds and enough(opened_s))
        return self.between(opened_s, self.edge())

    def between(self, opened_s: float, closed_s: float) -> Window:
        """Return what was used between two moments that lie within the readings."""
        joules: dict[Key, float] = {}
        reasons: dict[Key, str] = {}
        for key, track in self.tracks.items():
            try:
                joules[key] = track.joules(opened_s, closed_s)
            except Unavailable as why:
                reasons[key] = why.reason
        integrals: dict[str, float] = {}
        for uuid, track in self.powers.items():
            try:
                integrals[uuid] = track.joules(opened_s, closed_s)
            except Unavailable:
                continue
        peaks = {uuid: track.peak(opened_s, closed_s) for uuid, track in self.powers.items()}
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
    """Yield a meter of everything that can be read here; see `open_sources`."""
    with open_sources(device, powercap=powercap) as inventory:
        yield EnergyMeter(inventory, clock, sleep)
