"""Measure contenders in blocks. A block has one window of each contender, in random order.

A slow drift, such as that of temperature, is therefore nearly the same for all windows of a block.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from toolchain.base.progress import track
from toolchain.energy.compare.contenders import Load, Log, in_memory
from toolchain.energy.load import Progress
from toolchain.energy.protocol import LEAD_OUT_S, Protocol, Run, Trial, trial, under_load, warm_up
from toolchain.errors import UsageError
from toolchain.meters.energy import EnergyMeter

Order = list[list[str]]  # for each block, the names of the contenders in the order of measurement


def shuffle(names: Sequence[str], blocks: int, *, seed: int) -> Order:
    """Return, for each block, the names of the contenders in a random order."""
    generator = np.random.default_rng(seed)
    return [[names[index] for index in generator.permutation(len(names))] for _ in range(blocks)]


def measure(
    loads: dict[str, Load], order: Order, meter: EnergyMeter, protocol: Protocol, *, log: Log
) -> dict[str, Run]:
    """Warm up each contender once, measure a window of each in every block, and return their runs by name.

    Raises:
        MachineError: the contenders do not fit into memory together.
        UsageError: a contender does not reach the fixed rate of rows per second.
    """
    runs: dict[str, Run] = {}
    for name, load in loads.items():
        log(f"warming up {name}")
        load.prepare()
        with in_memory(name, beside=[other for other in loads if other != name]):
            warmed = under_load(load.infer, load.work, meter, protocol, lambda done: warm_up(meter, done, protocol))
        runs[name] = Run(warm_up=warmed)
    phase = np.random.default_rng(protocol.seed)
    for block, name in in_blocks(order):
        # The order of the rows differs between blocks.
        shifted = dataclasses.replace(protocol, seed=protocol.seed + block)
        found = _window(name, loads[name], meter, shifted, delay_s=phase.uniform(0, meter.tick_s))
        runs[name].trials.append(found)
        log(f"block {block + 1} of {len(order)}: {describe(name, found)}")
    return runs


def in_blocks(order: Order) -> Iterable[tuple[int, str]]:
    """Yield (number of the block, name of the contender) for each window in turn, and show the progress of blocks."""
    for block, names in enumerate(track(order, total=len(order), text="blocks")):
        for name in names:
            yield block, name


def _window(name: str, load: Load, meter: EnergyMeter, protocol: Protocol, *, delay_s: float) -> Trial:
    """Measure one window of a contender, with the load running before and after it."""

    def watch(progress: Progress) -> Trial:
        found = trial(meter, progress, protocol, delay_s=delay_s)
        meter.wait(LEAD_OUT_S)
        return found

    load.prepare()
    try:
        return under_load(load.infer, load.work, meter, protocol, watch)
    except UsageError as error:  # the contender does not reach the fixed rate
        raise UsageError(f"{name}: {error}") from error


def describe(name: str, found: Trial) -> str:
    """Return a line of progress about a window: its throughput, and the components that could not be read."""
    faults = "".join(f", {part} has no reading ({why})" for (part, _), why in found.window.reasons.items())
    return f"{name}, {found.work.rows / found.window.seconds:,.0f} rows/s{faults}"
