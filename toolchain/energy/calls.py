"""Measure the joules of one call of any function, as `eval` measures a runtime. `profile` does so for each group."""

from collections.abc import Callable

import numpy as np

from toolchain.energy.components import counted, lacking
from toolchain.energy.load import Piece
from toolchain.energy.protocol import Protocol, trial, under_load
from toolchain.meters.energy import EnergyMeter

# A function that calls its argument without a pause. It returns (joules of one call, None), or (None, reason code).
Measure = Callable[[Callable[[], object]], tuple[float | None, str | None]]

# The work of a call is unknown, so each call counts as one row of one token.
ONE = Piece({"input_ids": np.zeros((1, 1), np.int32)}, rows=1, tokens=1)


def joules_per_call(
    meter: EnergyMeter, protocol: Protocol, *, device: str, components: tuple[str, ...] | None = None
) -> Measure:
    """Return a function that measures the joules of one call of its argument, repeated without a pause for one window.

    It returns (joules, None), or (None, reason code) if they cannot be measured. The joules are the sum over
    `components`, by default those that a backend on `device` uses. Components that this machine cannot measure are left
    out.
    """
    used = [name for name in components or counted(device) if name in meter.components]

    def measure(work: Callable[[], object]) -> tuple[float | None, str | None]:
        if missing := lacking(device, meter):
            return None, missing[0]

        def call(batch: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            work()
            return np.empty(0, np.float32)

        found = under_load(call, [ONE], meter, protocol, lambda done: trial(meter, done, protocol))
        joules = [found.window.component_j(name) for name in used]
        if None in joules:
            return None, next(filter(None, map(found.window.reason, used)))
        return sum(value or 0.0 for value in joules) / found.work.calls, None

    return measure
