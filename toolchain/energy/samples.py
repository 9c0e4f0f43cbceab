"""Power over time in even steps, from readings that come when they come."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toolchain.energy.component import counted
from toolchain.meters.energy import POLL_S, EnergyMeter, Window
from toolchain.meters.sources import BOARD, COMPONENTS
from toolchain.meters.track import Track

Series = npt.NDArray[np.float64]

MOST = 10_000
"""Samples that are kept: of what takes longer than eight minutes, each is a mean over several steps."""

BLUR = 10
"""Ticks are seen up to a poll late; over so many times that, mean power by a counter is within a tenth of the truth."""


@dataclass(frozen=True)
class Samples:
    """The time at the end of each step, each component's power and its joules so far, and the highest powers.

    A board's power is what its sensor said last; of what has a counter alone, it is the mean of the step.
    """

    time_s: Series
    power_w: dict[str, Series]
    joules: dict[str, Series]
    peak_w: dict[str, float]
    total_peak_w: float | None

    def to_json(self) -> dict[str, list[float]]:
        """Return lists, by names with units."""
        named = {"time_s": self.time_s}
        named |= {f"{name}_w": series for name, series in self.power_w.items()}
        named |= {f"{name}_j": series for name, series in self.joules.items()}
        return {name: [round(value, 3) for value in series.tolist()] for name, series in named.items()}


def sample(meter: EnergyMeter, window: Window, device: str) -> Samples:
    """Return samples of what has joules in a window; `device` tells which components add up (see `counted`)."""
    steps = max(1, int(window.seconds / POLL_S))
    group = -(-steps // MOST)
    edges_s = np.linspace(window.opened_s, window.closed_s, steps // group * group + 1)
    power_w, joules = {}, {}
    for name in COMPONENTS:
        if window.component_j(name) is not None:
            keys = [key for key in meter.tracks if key[0] == name]
            power_w[name] = _sum_of(_power(_shown(meter, window, *key), edges_s) for key in keys)
            joules[name] = _sum_of(_so_far(meter.tracks[key], edges_s, window.joules[key]) for key in keys)
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


def _shown(meter: EnergyMeter, window: Window, component: str, device: str) -> Track:
    """Return the track to draw: of a board its sensor, if that could be read all the time."""
    if component == BOARD and device in window.integral_j:
        return meter.powers[device]
    return meter.tracks[component, device]


def _power(track: Track, edges_s: Series) -> Series:
    """Return the watts of each step."""
    times, values = np.array(track.times_s), np.array(track.values)
    if not track.source.is_counter:
        last: Series = values[np.searchsorted(times, edges_s[1:], side="right") - 1]
        return last
    apart_s = BLUR * min(POLL_S, track.tick_s or POLL_S)
    _, knots = np.unique((times[-1] - times[::-1]) // apart_s, return_index=True)  # from the last tick backwards
    knots = len(times) - 1 - knots[::-1]
    power_w: Series = np.diff(np.interp(edges_s, times[knots], values[knots])) / np.diff(edges_s)
    return power_w


def _so_far(track: Track, edges_s: Series, total_j: float) -> Series:
    """Return the joules since the first edge at each edge, `total_j` at the last."""
    times, values = np.array(track.times_s), np.array(track.values)
    if not track.source.is_counter:
        values = np.concatenate([[0.0], np.cumsum((values[1:] + values[:-1]) / 2 * np.diff(times))])
    joules: Series = np.interp(edges_s, times, values)
    joules -= joules[0]
    if joules[-1]:
        joules *= total_j / joules[-1]
    return joules
