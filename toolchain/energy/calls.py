"""Joules of one call of any work: for comparing pieces of work on the meter that `eval` uses."""

from collections.abc import Callable

import numpy as np

from toolchain.energy.component import counted
from toolchain.energy.evaluation import device_component
from toolchain.energy.load import Piece
from toolchain.energy.protocol import Protocol, trial, under_load
from toolchain.meters.energy import EnergyMeter

Measure = Callable[[Callable[[], object]], tuple[float | None, str | None]]
"""Runs work without a pause; returns what one call cost and None, or None and a reason code."""

ONE = Piece({"input_ids": np.zeros((1, 1), np.int32)}, rows=1, tokens=1)


def joules_per_call(meter: EnergyMeter, protocol: Protocol, *, device: str) -> Measure:
    """Return what runs work without a pause for one window and gives the joules of one call.

    They are those of the components that a backend on `device` uses and that can be measured here.
    """
    own = device_component(device)
    used = [name for name in counted(device) if name in meter.components]

    def measure(work: Callable[[], object]) -> tuple[float | None, str | None]:
        if own not in meter.components:
            return None, meter.missing[own][0]

        def call(batch: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            work()
            return np.empty(0, np.float32)

        found = under_load(call, [ONE], meter, protocol, lambda done: trial(meter, done, protocol))
        joules = [found.window.component_j(name) for name in used]
        if None in joules:
            return None, next(filter(None, map(found.window.reason, used)))
        return sum(value or 0.0 for value in joules) / found.work.calls, None

    return measure
