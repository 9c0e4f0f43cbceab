"""How energy is measured: idle, warm-up until steady, then windows under a load that does not stop.

Why so: a counter moves in ticks and a sensor may see only part of the time (Yang, Adamek, Armour: Accurate and
Convenient Energy Measurements for GPUs, SC'24), so windows are long, begin and end on ticks, and the load has no period
that could lock to the sensor's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from toolchain.energy.load import Found, Piece, Progress, Work, arrivals, drive, shuffled
from toolchain.errors import UsageError
from toolchain.meters.energy import EnergyMeter, Window
from toolchain.progress import track
from toolchain.tensors import Infer

LEAST_WINDOW_S, LEAST_TICKS, LEAST_CALLS = 5.0, 50, 32
"""No window is shorter than any of these: its edges, and the noise of a sensor, would be seen in it."""

LEAD_IN_S, LEAD_OUT_S = 1.0, 0.3
"""Load before the first tick and after the last."""

IDLE_S = 10.0
IDLE_TRIES = 3
FLAT = 0.05
"""Idle power is taken when two halves of its window differ by less, or at the last try."""

STEADY_S, STEADY_THROUGHPUT, STEADY_C, STEADY_CLOCK = 10.0, 0.01, 1.0, 0.02
"""Warm enough: for so long, throughput and clock within these shares, and temperature within so many degrees."""

LATE_S = 1.0
"""A fixed rate is not kept where requests are so far behind their time."""


@dataclass(frozen=True)
class Protocol:
    """How long, how often, at what rate (None: as fast as it goes)."""

    window_s: float = 30.0
    windows: int = 5
    warmup_s: float = 120.0
    rate: float | None = None
    seed: int = 0

    def length_s(self, meter: EnergyMeter) -> float:
        """Return the seconds of a window."""
        return max(self.window_s, LEAST_WINDOW_S, LEAST_TICKS * meter.tick_s)


@dataclass(frozen=True)
class Trial:
    """One window, and what was done in it."""

    window: Window
    work: Work


@dataclass(frozen=True)
class WarmUp:
    """How long it took until it was steady, or that it was not when its time was up."""

    seconds: float
    steady: bool


@dataclass(frozen=True)
class Idle:
    """Watts by component of a machine that does nothing, and whether they had come to rest."""

    power_w: dict[str, float]
    flat: bool


@dataclass
class Run:
    """All that was measured of one load. Cold: before the runtime was opened; hot: with it open, before and after."""

    trials: list[Trial] = field(default_factory=list)
    warm_up: WarmUp | None = None
    cold: Idle | None = None
    hot_before: Idle | None = None
    hot_after: Idle | None = None


def idle(meter: EnergyMeter, seconds: float = IDLE_S) -> Idle | None:
    """Measure the power of doing nothing, once it is flat; None where nothing can be measured."""
    if not meter.tracks:
        return None
    for last in [False] * (IDLE_TRIES - 1) + [True]:
        halves = [meter.window(seconds / 2) for _ in range(2)]
        found = [_power_w(half) for half in halves]
        flat = all(math.isclose(found[0].get(name, 0.0), watts, rel_tol=FLAT) for name, watts in found[1].items())
        if flat or last:
            break
    return Idle({name: (found[0][name] + watts) / 2 for name, watts in found[1].items() if name in found[0]}, flat)


def _power_w(window: Window) -> dict[str, float]:
    joules = {component: window.component_j(component) for component, _ in window.joules}
    return {component: value / window.seconds for component, value in joules.items() if value is not None}


def measure(
    infer: Infer,
    work: list[Piece],
    meter: EnergyMeter,
    protocol: Protocol,
    *,
    tell: Callable[[str], None] = lambda line: None,
) -> Run:
    """Measure a runtime under load: idle, warm-up, windows, idle.

    Raises:
        UsageError: it does not keep the rate.
    """
    tell("energy: idle, with the model loaded")
    run = Run(hot_before=idle(meter))

    def windows(progress: Progress) -> None:
        tell(f"energy: warming up until steady, {protocol.warmup_s:g} s at most")
        run.warm_up = warm_up(meter, progress, protocol)
        phase = np.random.default_rng(protocol.seed)
        tell(f"energy: {protocol.windows} windows of {protocol.length_s(meter):.3g} s")
        for number in track(range(protocol.windows), total=protocol.windows, text="energy"):
            found = trial(meter, progress, protocol, delay_s=phase.uniform(0, meter.tick_s))
            run.trials.append(found)
            speed = found.work.rows / found.window.seconds
            tell(f"energy: window {number + 1} of {protocol.windows}, {speed:,.0f} rows/s")
        meter.wait(LEAD_OUT_S)

    under_load(infer, work, meter, protocol, windows)
    tell("energy: idle again")
    run.hot_after = idle(meter)
    return run


def under_load(
    infer: Infer, work: list[Piece], meter: EnergyMeter, protocol: Protocol, watch: Callable[[Progress], Found]
) -> Found:
    """Run `watch` while the load runs as the protocol says; return what it returns."""
    arriving = arrivals(protocol.rate, seed=protocol.seed) if protocol.rate else None
    stream = shuffled(work, seed=protocol.seed)
    return drive(infer, stream, watch, cancel=meter.cancel, arriving=arriving, clock=meter.clock)


def trial(meter: EnergyMeter, progress: Progress, protocol: Protocol, *, delay_s: float = 0.0) -> Trial:
    """Measure one window under a load that runs already.

    Raises:
        UsageError: the load does not keep the rate.
    """
    meter.wait(LEAD_IN_S + delay_s)
    before = progress.calls
    window = meter.window(protocol.length_s(meter), enough=lambda _: progress.calls >= before + LEAST_CALLS)
    meter.watch(lambda: progress.times_s[-1] >= window.closed_s)  # the call that it cuts is shared out once it is done
    if protocol.rate and progress.late_s > LATE_S:
        reached = progress.between(window.opened_s, window.closed_s).rows / window.seconds
        raise UsageError(f"--rate {protocol.rate:g}: this backend does {reached:.3g} a second here. Give a lower rate.")
    return Trial(window, progress.between(window.opened_s, window.closed_s))


def warm_up(meter: EnergyMeter, progress: Progress, protocol: Protocol) -> WarmUp:
    """Wait under load until throughput, temperature and clocks are steady, or the time is up."""
    begun_s = meter.clock()
    steady = False
    while not steady and meter.clock() - begun_s < protocol.warmup_s:
        meter.wait(min(1.0, protocol.warmup_s))
        steady = _is_steady(meter, progress, begun_s, fixed=protocol.rate is not None)
    return WarmUp(meter.clock() - begun_s, steady)


def _is_steady(meter: EnergyMeter, progress: Progress, begun_s: float, *, fixed: bool) -> bool:
    now_s = progress.times_s[-1]  # what a call that still runs has done is not known
    start_s, middle_s = now_s - STEADY_S, now_s - STEADY_S / 2
    if start_s < begun_s:
        return False
    early, late = progress.between(start_s, middle_s).slots, progress.between(middle_s, now_s).slots
    if not fixed and not math.isclose(early, late, rel_tol=STEADY_THROUGHPUT):
        return False
    for kept in meter.states.values():
        recent = [state for when, state in kept if when >= start_s]
        degrees = [state.temperature_c for state in recent if state.temperature_c is not None]
        clocks = [state.sm_clock_mhz for state in recent if state.sm_clock_mhz is not None]
        if degrees and max(degrees) - min(degrees) > STEADY_C:
            return False
        if clocks and max(clocks) - min(clocks) > STEADY_CLOCK * max(clocks):
            return False
    return True
