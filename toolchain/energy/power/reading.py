"""A reading: joules and power over an interval that begins and ends at any moment, and the error caused by its ends.

The windows of `eval` begin and end on ticks of the counters, but a command ends at any moment. Its joules are therefore
known only at the last tick before its end and at the next tick after it, and are interpolated in between.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from toolchain.energy.components import component, context, counted, flags
from toolchain.meters.energy import POLL_S, EnergyMeter, Key, Window
from toolchain.meters.nvml import Unavailable
from toolchain.meters.readings import STUCK, TOO_SHORT, Readings
from toolchain.meters.sources import BOARD, COMPONENTS
from toolchain.records.energy import ComponentRecord, EnergyContext, Status
from toolchain.records.power import ReadingRecord

Series = npt.NDArray[np.float64]
Joules = tuple[float, float]  # joules of an interval, and the largest error that its ends can cause

# Largest age in seconds of a power value when it is read: the slowest known sensors publish a value every 100 ms.
SENSOR_S = 0.1

# Largest number of samples in a record. A measurement of eight minutes has that many steps; in a longer one, each
# sample is the mean over several steps.
MOST_SAMPLES = 10_000

# The power of a counter is averaged over this many polls or ticks, whichever take less time. A value that is read is at
# most one poll or one tick old, so the mean is within 10 % of the truth.
BLUR_TICKS = 10


@dataclass(frozen=True)
class Samples:
    """Power over time, in steps of equal length.

    The power of a GPU board in a step is the last value of its sensor. For a component that has only an energy counter,
    it is the mean over the step.

    Attributes:
        time_s: seconds since the start, at the end of each step.
        power_w: component -> power in each step.
        joules: component -> joules from the start to the end of each step.
        peak_w: component -> highest power.
        total_peak_w: highest power of the components in the total.
    """

    time_s: Series
    power_w: dict[str, Series]
    joules: dict[str, Series]
    peak_w: dict[str, float]
    total_peak_w: float | None

    def to_json(self) -> dict[str, list[float]]:
        """Return the series as lists; the names end with the unit, such as gpu_board_w (W) and gpu_board_j (J)."""
        named = {"time_s": self.time_s}
        named |= {f"{name}_w": series for name, series in self.power_w.items()}
        named |= {f"{name}_j": series for name, series in self.joules.items()}
        return {name: [round(value, 3) for value in series.tolist()] for name, series in named.items()}


@dataclass
class Reading:
    """The figures of `measure`. They are None until its body has ended, and if nothing could be measured.

    Attributes:
        device: device of the measurement. With cpu, the joules of GPUs are recorded but not part of the total.
        seconds: length of the interval.
        components: component -> record as in the energy block of a result, with `edge_error_j` in joules.
        samples: power over time, or None.
        context: power limits, clocks (MHz), temperatures (degrees Celsius) and other processes of the GPUs.
        flags: remarks, in words, on whether the figures can be trusted.
    """

    device: str
    seconds: float | None = None
    components: dict[str, ComponentRecord] = field(default_factory=dict)
    samples: Samples | None = None
    context: EnergyContext = field(default_factory=lambda: EnergyContext(gpus=[]))
    flags: list[str] = field(default_factory=list)

    def end(self, meter: EnergyMeter, opened_s: float, closed_s: float) -> None:
        """Compute the figures of an interval: `opened_s` comes from `meter.edge()`, `closed_s` from `close(meter)`."""
        window, error_j = measured(meter, opened_s, closed_s)
        self.seconds = window.seconds
        samples = sample(meter, window, self.device)
        self.samples = samples if samples.power_w else None
        for name in COMPONENTS:
            found = self.components[name] = component(name, [window], meter, self.device)
            if found["joules"] is not None:
                found["peak_power_w"] = samples.peak_w[name]
                found["edge_error_j"] = sum(joules for key, joules in error_j.items() if key[0] == name)
        self.context = context(meter)
        self.flags = flags(self.components, self.context)

    @property
    def joules(self) -> dict[str, float | None]:
        """Component -> joules; None if it was not measured."""
        return {name: one["joules"] for name, one in self.components.items()}

    @property
    def missing(self) -> dict[str, str]:
        """Component without joules -> reason code, such as no_nvml_library."""
        return {name: one["reason"] or "" for name, one in self.components.items() if one["joules"] is None}

    @property
    def total_j(self) -> float | None:
        """Joules of all measured components together. GPU memory is not added, because it is part of the board."""
        return self._sum_of("joules")

    @property
    def mean_power_w(self) -> float | None:
        """`total_j` divided by `seconds`, in watts."""
        return None if self.total_j is None or not self.seconds else self.total_j / self.seconds

    @property
    def peak_power_w(self) -> float | None:
        """Highest power of all measured components together, in watts."""
        return None if self.samples is None else self.samples.total_peak_w

    @property
    def edge_error_j(self) -> float | None:
        """Largest error of `total_j`, in joules, that can arise because the interval begins or ends between ticks."""
        return self._sum_of("edge_error_j")

    @property
    def relative_edge_error(self) -> float | None:
        """`edge_error_j` as a fraction of `total_j`: about T / L for an update period T and an interval of length L."""
        return self.edge_error_j / self.total_j if self.edge_error_j is not None and self.total_j else None

    @property
    def status(self) -> Status:
        """`measured`; `partial` if a component of the total was not measured; `unavailable` if none was."""
        lacking = [name for name in counted(self.device) if name in self.missing or self.components[name]["detail"]]
        return "unavailable" if self.total_j is None else "partial" if lacking else "measured"

    def _sum_of(self, key: Literal["joules", "edge_error_j"]) -> float | None:
        found = [self.components[name].get(key) for name in counted(self.device) if name in self.components]
        known = [value for value in found if value is not None]
        return sum(known) if known else None

    def to_json(self) -> ReadingRecord:
        """Return the record. Its keys end with the unit; a value that was not measured is null."""
        return {
            "seconds": self.seconds,
            "status": self.status,
            "components": self.components,
            "total_j": self.total_j,
            "mean_power_w": self.mean_power_w,
            "peak_power_w": self.peak_power_w,
            "edge_error_j": self.edge_error_j,
            "relative_edge_error": self.relative_edge_error,
            "samples": None if self.samples is None else self.samples.to_json(),
            "context": self.context,
            "flags": self.flags,
        }


def close(meter: EnergyMeter) -> float:
    """Return the time of the end of a measurement, after waiting until every counter has ticked once more."""
    meter.poll()  # otherwise an earlier tick that has not been read yet would count as the next one
    closed_s = meter.clock()
    meter.edge()
    return closed_s


def measured(meter: EnergyMeter, opened_s: float, closed_s: float) -> tuple[Window, dict[Key, float]]:
    """Return the window between two times, and the largest error in joules of each of its counters and sensors.

    `opened_s` comes from `meter.edge()`, and `closed_s` from `close(meter)`.
    """
    joules: dict[Key, float] = {}
    errors_j: dict[Key, float] = {}
    reasons: dict[Key, str] = {}
    for key, readings in meter.readings.items():
        read = _counted if readings.source.is_counter else _integrated
        try:
            used_j, error_j = read(readings, opened_s, closed_s)
            if error_j >= used_j:
                raise Unavailable(TOO_SHORT)
        except Unavailable as why:
            reasons[key] = why.reason
        else:
            joules[key], errors_j[key] = used_j, error_j
    return replace(meter.between(opened_s, closed_s), joules=joules, reasons=reasons), errors_j


def _counted(readings: Readings, opened_s: float, closed_s: float) -> Joules:
    """Return the joules that a counter adds in an interval, and their largest error.

    The joules of a tick that begins or ends outside the interval are interpolated; the error is the energy of the (at
    most two) such ticks.
    """
    times = readings.times_s
    first, last = bisect_right(times, opened_s) - 1, bisect_right(times, closed_s)
    if last == len(times):
        raise Unavailable(next((reason for when, reason in readings.faults if when >= opened_s), STUCK))
    joules, error_j = readings.joules(times[first], times[last]), 0.0
    for index, outside_s in ((first + 1, opened_s - times[first]), (last, times[last] - closed_s)):
        if outside_s:
            tick_j = readings.values[index] - readings.values[index - 1]
            # A tick is seen only at the next poll, so two ticks can seem closer in time than they are.
            joules -= tick_j * outside_s / max(readings.tick_s or 0.0, times[index] - times[index - 1])
            error_j += tick_j
    return joules, error_j


def _integrated(readings: Readings, opened_s: float, closed_s: float) -> Joules:
    """Return the integral of a sensor's power, and its largest error: the energy of `SENSOR_S` seconds at each end."""
    edges_w = np.interp([opened_s, closed_s], readings.times_s, readings.values)
    return readings.joules(opened_s, closed_s), SENSOR_S * float(edges_w.sum())


def sample(meter: EnergyMeter, window: Window, device: str) -> Samples:
    """Return the power over time of all components that were measured in a window.

    `device` decides which components the highest total power includes.
    """
    steps = max(1, int(window.seconds / POLL_S))
    group = -(-steps // MOST_SAMPLES)
    edges_s = np.linspace(window.opened_s, window.closed_s, steps // group * group + 1)
    power_w, joules = {}, {}
    for name in COMPONENTS:
        if window.component_j(name) is not None:
            keys = [key for key in meter.readings if key[0] == name]
            power_w[name] = _sum_of(_power(_shown(meter, window, *key), edges_s) for key in keys)
            joules[name] = _sum_of(_joules(meter.readings[key], edges_s, window.joules[key]) for key in keys)
    added = [series for name, series in power_w.items() if name in counted(device)]
    return Samples(
        time_s=edges_s[group::group] - window.opened_s,
        power_w={name: series.reshape(-1, group).mean(axis=1) for name, series in power_w.items()},
        joules={name: series[group::group] for name, series in joules.items()},
        peak_w={name: float(series.max()) for name, series in power_w.items()},
        total_peak_w=float(_sum_of(added).max()) if added else None,
    )


def _sum_of(series: Iterable[Series]) -> Series:
    total: Series = np.sum(list(series), axis=0)
    return total


def _shown(meter: EnergyMeter, window: Window, component: str, device: str) -> Readings:
    """Return the readings that give the power over time: those of a board's power sensor unless it failed."""
    if component == BOARD and device in window.integral_j:
        return meter.powers[device]
    return meter.readings[component, device]


def _power(readings: Readings, edges_s: Series) -> Series:
    """Return the power of each step between two edges, in watts."""
    times, values = np.array(readings.times_s), np.array(readings.values)
    if not readings.source.is_counter:
        last: Series = values[np.searchsorted(times, edges_s[1:], side="right") - 1]
        return last
    apart_s = BLUR_TICKS * min(POLL_S, readings.tick_s or POLL_S)
    # Knots are chosen backwards from the last tick.
    _, knots = np.unique((times[-1] - times[::-1]) // apart_s, return_index=True)
    knots = len(times) - 1 - knots[::-1]
    power_w: Series = np.diff(np.interp(edges_s, times[knots], values[knots])) / np.diff(edges_s)
    return power_w


def _joules(readings: Readings, edges_s: Series, total_j: float) -> Series:
    """Return the joules from the first edge to each edge, scaled so that the last value is `total_j`."""
    times, values = np.array(readings.times_s), np.array(readings.values)
    if not readings.source.is_counter:
        values = np.concatenate([[0.0], np.cumsum((values[1:] + values[:-1]) / 2 * np.diff(times))])
    joules: Series = np.interp(edges_s, times, values)
    joules -= joules[0]
    if joules[-1]:
        joules *= total_j / joules[-1]
    return joules
