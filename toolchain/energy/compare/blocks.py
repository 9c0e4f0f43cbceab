"""Blocks of one window of each contender, in random order, so that what drifts is much the same for all in a block."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from toolchain.energy.compare.contenders import Load, Tell, fitting
from toolchain.energy.load import Progress
from toolchain.energy.protocol import LEAD_OUT_S, Protocol, Run, Trial, trial, under_load, warm_up
from toolchain.errors import UsageError
from toolchain.meters.energy import EnergyMeter
from toolchain.progress import track

Order = list[list[str]]
"""Names of the contenders in the order of each block."""


def shuffle(names: Sequence[str], blocks: int, *, seed: int) -> Order:
    """Return the names in a random order for each block."""
    generator = np.random.default_rng(seed)
    return [[names[index] for index in generator.permutation(len(names))] for _ in range(blocks)]


def measure(
    loads: dict[str, Load], order: Order, meter: EnergyMeter, protocol: Protocol, *, tell: Tell
) -> dict[str, Run]:
    """Warm each up once, and measure a window of each in every block.

    Raises:
        MachineError: they do not fit into memory together.
        UsageError: one does not keep the rate.
    """
    runs: dict[str, Run] = {}
    for name, load in loads.items():
        tell(f"warming up {name}")
        with fitting(name, beside=[other for other in loads if other != name]):
            warmed = under_load(load.infer, load.work, meter, protocol, lambda done: warm_up(meter, done, protocol))
        runs[name] = Run(warm_up=warmed)
    for name, trials in play(order, _windows(loads, meter, protocol), tell=tell).items():
        runs[name].trials += trials
    return runs


def _windows(loads: dict[str, Load], meter: EnergyMeter, protocol: Protocol) -> Callable[[str, int], Trial]:
    """Return what measures a contender's window in a block; its rows come in another order in each."""
    phase = np.random.default_rng(protocol.seed)

    def window(name: str, block: int) -> Trial:
        now = dataclasses.replace(protocol, seed=protocol.seed + block)
        delay_s = phase.uniform(0, meter.tick_s)

        def watch(progress: Progress) -> Trial:
            found = trial(meter, progress, now, delay_s=delay_s)
            meter.wait(LEAD_OUT_S)
            return found

        try:
            return under_load(loads[name].infer, loads[name].work, meter, now, watch)
        except UsageError as error:  # it does not keep the rate, and does not know its name
            raise UsageError(f"{name}: {error}") from error

    return window


def play(order: Order, window: Callable[[str, int], Trial], *, tell: Tell) -> dict[str, list[Trial]]:
    """Return each contender's trials, a block each, measured in this order."""
    trials: dict[str, list[Trial]] = {name: [] for name in order[0]}
    for block, names in enumerate(track(order, total=len(order), text="blocks")):
        for name in names:
            found = window(name, block)
            trials[name].append(found)
            speed = found.work.rows / found.window.seconds
            faults = "".join(f", {part} has no reading ({why})" for (part, _), why in found.window.reasons.items())
            tell(f"block {block + 1} of {len(order)}: {name}, {speed:,.0f} rows/s{faults}")
    return trials
