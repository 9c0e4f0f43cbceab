"""The search: coarse points over the range, points beside the best of them, and the best alone against the first state.

Points are compared in blocks of random order, as the contenders of `compare --energy` are, and every stage has the
settings as found among them. The last stage is measured afresh: the least of many noisy figures looks better than it
is, so neither the joules nor the verdict are taken from the stages that chose it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toolchain.energy.clocks.points import AS_FOUND, Point, Scale
from toolchain.energy.compare.blocks import Order, measure, shuffle
from toolchain.energy.compare.contenders import Load, Log
from toolchain.energy.compare.pairs import pair
from toolchain.energy.protocol import Protocol, Run
from toolchain.energy.record import block
from toolchain.meters.energy import EnergyMeter
from toolchain.records.clocks import StageName
from toolchain.records.energy import EnergyBlock
from toolchain.records.energy_comparison import Pairing

# Sets the GPU to a point.
Change = Callable[[Point], None]


@dataclass(frozen=True)
class Measured:
    """One point in one stage.

    Attributes:
        point: the point.
        run: its windows.
        block: its figures.
        against: the comparison with the settings as found; None for those themselves.
        fast_enough: whether its throughput is within the allowed slowdown.
    """

    point: Point
    run: Run
    block: EnergyBlock
    against: Pairing | None
    fast_enough: bool

    @property
    def ratio(self) -> float | None:
        """Joules a row over those of the settings as found; None if one of both was not measured."""
        return 1.0 if self.against is None else self.against["ratio"]


@dataclass(frozen=True)
class Stage:
    """Points that were measured in common blocks, the settings as found first."""

    name: StageName
    order: Order
    points: list[Measured]


@dataclass(frozen=True)
class Contest:
    """What is compared and how.

    Attributes:
        load: the work.
        meter: measures it.
        device: device of the work, such as cuda:0.
        protocol: windows and their number, which is that of the blocks; the coarse stage has half of them.
        max_slowdown: highest ratio of the throughput as found to that of a point; None for none.
        change: sets the GPU to a point.
        log: takes a line of progress.
    """

    load: Load
    meter: EnergyMeter
    device: str
    protocol: Protocol
    max_slowdown: float | None
    change: Change
    log: Log

    def search(self, scale: Scale, coarse: Sequence[Point]) -> list[Stage]:
        """Return the stages: coarse, fine where points are left between, and final unless nothing is better.

        Raises:
            ToolchainError: see `blocks.measure`.
        """
        blocks = self.protocol.windows
        stages = [self._stage("coarse", coarse, coarse_blocks(blocks))]
        first = self._least(stages)
        if fine := scale.fine(first, coarse):
            stages.append(self._stage("fine", [first, *fine], blocks))
        best = self._least(stages)
        if best != AS_FOUND:
            stages.append(self._stage("final", [best], blocks))
        return stages

    def _least(self, stages: Sequence[Stage]) -> Point:
        """Return the point with the least joules a row, each against the settings as found in its own blocks."""
        every = [one for stage in stages for one in stage.points if one.ratio is not None and one.fast_enough]
        latest = {one.point: one for one in every}  # the stage closest to the end, whose neighbours are closest too
        return min(latest.values(), key=lambda one: one.ratio or 0.0).point if latest else AS_FOUND

    def _stage(self, name: StageName, points: Sequence[Point], blocks: int) -> Stage:
        every = {one.name: one for one in (AS_FOUND, *points)}
        number = ("coarse", "fine", "final").index(name)
        protocol = dataclasses.replace(self.protocol, windows=blocks, seed=self.protocol.seed + number)
        order = shuffle(list(every), blocks, seed=protocol.seed)
        loads = {key: dataclasses.replace(self.load, prepare=self._to(one)) for key, one in every.items()}
        self.log(f"{name}: {', '.join(every)}")
        runs = measure(loads, order, self.meter, protocol, log=self.log)
        figures = {key: block(run, self.meter, protocol, device=self.device) for key, run in runs.items()}
        base = figures[AS_FOUND.name]["windows"]
        made = []
        for key, one in every.items():
            against = None if one == AS_FOUND else pair(base, figures[key]["windows"], seed=protocol.seed)
            made.append(Measured(one, runs[key], figures[key], against, self._is_fast_enough(against)))
        return Stage(name, order, made)

    def _is_fast_enough(self, against: Pairing | None) -> bool:
        if self.max_slowdown is None or against is None:
            return True
        ratio = against["throughput_ratio"]
        return ratio is not None and ratio >= 1 / self.max_slowdown

    def _to(self, point: Point) -> Callable[[], None]:
        return lambda: self.change(point)


def coarse_blocks(blocks: int) -> int:
    """Return the number of blocks of the coarse stage, whose points are far apart: half of those of the others."""
    return max(blocks // 2, 2)


def least_s(points: int, protocol: Protocol) -> float:
    """Return the least time of all windows of a search in seconds, for a number of coarse points."""
    fine, final = 4, 2  # the best, one on each side, and the settings as found; the best and the settings as found
    windows = coarse_blocks(protocol.windows) * (points + 1) + protocol.windows * (fine + final)
    return windows * protocol.window_s
