"""The measurement protocol: idle power, warm-up until steady, windows under a continuous load, and idle power again.

An energy counter is updated in ticks, and a power sensor may sample only part of the time (Yang, Adamek, Armour:
Accurate and Convenient Energy Measurements for GPUs, SC'24). Windows are therefore long and begin and end on ticks, and
the load is not periodic, so that it cannot synchronise with the sensor.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from toolchain.base.progress import track
from toolchain.base.tensors import Infer
from toolchain.energy.load import Found, Piece, Progress, Work, arrivals, drive, shuffled
from toolchain.errors import UsageError
from toolchain.meters.energy import EnergyMeter, Window

# Minimum length of a window in seconds, ticks and calls. In a shorter window, the error at the edges and the noise of a
# sensor would be visible in the result.
LEAST_WINDOW_S, LEAST_TICKS, LEAST_CALLS = 5.0, 50, 32

# Seconds that the load runs before the first tick of a window and after the last, so that it is steady at both edges.
LEAD_IN_S, LEAD_OUT_S = 1.0, 0.3

# Seconds for which idle power is measured, in two halves, and the number of tries. The result is accepted if the halves
# differ by at most the fraction FLAT, or at the last try.
IDLE_S = 10.0
IDLE_TRIES = 3
FLAT = 0.05

# The warm-up ends when the last STEADY_S seconds were steady: the throughput of the two halves differs by at most the
# fraction STEADY_THROUGHPUT, the clock varies by at most the fraction STEADY_CLOCK, and the temperature by at most
# STEADY_C degrees Celsius.
STEADY_S, STEADY_THROUGHPUT, STEADY_C, STEADY_CLOCK = 10.0, 0.01, 1.0, 0.02

# Largest delay of a request in seconds. If it is exceeded, the backend does not reach the fixed rate.
LATE_S = 1.0


@dataclass(frozen=True)
class Protocol:
    """The settings of a measurement.

    Attributes:
        window_s: minimum length of a window, s.
        windows: number of windows.
        warmup_s: maximum length of the warm-up, s.
        rate: rows per second of a fixed load; None for batches without a pause.
        seed: seed of the order of rows and of the random delays before windows.
    """

    window_s: float = 30.0
    windows: int = 5
    warmup_s: float = 120.0
    rate: float | None = None
    seed: int = 0

    def length_s(self, meter: EnergyMeter) -> float:
        """Return the minimum length of a window in seconds, with at least `LEAST_TICKS` ticks of the meter in it."""
        return max(self.window_s, LEAST_WINDOW_S, LEAST_TICKS * meter.tick_s)


@dataclass(frozen=True)
class Trial:
    """One measurement window, and the work done in it."""

    window: Window
    work: Work


@dataclass(frozen=True)
class WarmUp:
    """Length of the warm-up in seconds, and whether the machine was steady at its end."""

    seconds: float
    steady: bool


@dataclass(frozen=True)
class Idle:
    """Idle power in watts by component, and whether it was constant (see `FLAT`)."""

    power_w: dict[str, float]
    flat: bool


@dataclass
class Run:
    """The measurements of one load: its windows, its warm-up and idle power.

    Idle power is `cold` before the runtime was opened, and `hot` while it is open, before and after the load.
    """

    trials: list[Trial] = field(default_factory=list)
    warm_up: WarmUp | None = None
    cold: Idle | None = None
    hot_before: Idle | None = None
    hot_after: Idle | None = None


def idle(meter: EnergyMeter, seconds: float = IDLE_S) -> Idle | None:
    """Measure idle power, and try again if it was not constant; return None if no component can be measured."""
    if not meter.readings:
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
    log: Callable[[str], None] = lambda line: None,
) -> Run:
    """Measure the energy of a runtime: idle power, warm-up, windows, idle power. `log` gets each line of progress.

    Raises:
        UsageError: the runtime does not reach the fixed rate.
    """
    log("energy: measuring idle power with the model loaded")
    run = Run(hot_before=idle(meter))

    def windows(progress: Progress) -> None:
        log(f"energy: warming up until steady, {protocol.warmup_s:g} s at most")
        run.warm_up = warm_up(meter, progress, protocol)
        phase = np.random.default_rng(protocol.seed)
        log(f"energy: {protocol.windows} windows of {protocol.length_s(meter):.3g} s")
        for number in track(range(protocol.windows), total=protocol.windows, text="energy"):
            found = trial(meter, progress, protocol, delay_s=phase.uniform(0, meter.tick_s))
            run.trials.append(found)
            throughput = found.work.rows / found.window.seconds
            log(f"energy: window {number + 1} of {protocol.windows}, {throughput:,.0f} rows/s")
        meter.wait(LEAD_OUT_S)

    under_load(infer, work, meter, protocol, windows)
    log("energy: measuring idle power again")
    run.hot_after = idle(meter)
    return run


def under_load(
    infer: Infer, work: list[Piece], meter: EnergyMeter, protocol: Protocol, watch: Callable[[Progress], Found]
) -> Found:
    """Run `watch` in the meter's thread while this thread runs the protocol's load; return the value of `watch`."""
    arriving = arrivals(protocol.rate, seed=protocol.seed) if protocol.rate else None
    stream = shuffled(work, seed=protocol.seed)
    return drive(infer, stream, watch, cancel=meter.cancel, arriving=arriving, clock=meter.clock)


def trial(meter: EnergyMeter, progress: Progress, protocol: Protocol, *, delay_s: float = 0.0) -> Trial:
    """Measure one window under a running load, `delay_s` seconds after the lead-in of `LEAD_IN_S` seconds.

    Raises:
        UsageError: the load does not reach the fixed rate.
    """
    meter.wait(LEAD_IN_S + delay_s)
    window = meter.window(
        protocol.length_s(meter),
        enough=lambda opened_s: progress.calls - progress.calls_by(opened_s) >= LEAST_CALLS,
    )
    # Wait for the end of the call that runs at the window's edge, because its work is known only then.
    meter.watch(lambda: progress.times_s[-1] >= window.closed_s)
    if protocol.rate and progress.late_s > LATE_S:
        reached = progress.between(window.opened_s, window.closed_s).rows / window.seconds
        raise UsageError(f"--rate {protocol.rate:g}: this backend reaches {reached:.3g} rows/s. Give a lower rate.")
    return Trial(window, progress.between(window.opened_s, window.closed_s))


def warm_up(meter: EnergyMeter, progress: Progress, protocol: Protocol) -> WarmUp:
    """Wait under a running load until throughput, temperature and clocks are steady, or `protocol.warmup_s` is over."""
    begun_s = meter.clock()
    steady = False
    while not steady and meter.clock() - begun_s < protocol.warmup_s:
        meter.wait(min(1.0, protocol.warmup_s))
        steady = _is_steady(meter, progress, begun_s, fixed=protocol.rate is not None)
    return WarmUp(meter.clock() - begun_s, steady)


def _is_steady(meter: EnergyMeter, progress: Progress, begun_s: float, *, fixed: bool) -> bool:
    now_s = progress.times_s[-1]  # the work of a running call is not known yet
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
