"""The search for the point with the lowest energy per row, in up to three stages.

A point is an SM clock or a power limit. The coarse stage compares points over the whole range, the fine stage points
near the best of them, and the final stage only the best one. Every stage also measures the GPU with the settings that
it had at the start ("as found"), and compares each point with them. A block has one window of each point, in random
order, as in `compare --energy`.

The final stage measures the best point again, because the lowest of many noisy figures is probably too low. So neither
the reported joules nor the verdict come from the stages that chose the point.
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

# A function that sets the GPU to a point.
Change = Callable[[Point], None]


@dataclass(frozen=True)
class Measured:
    """The measurement of one point in one stage.

    Attributes:
        point: the SM clock or power limit.
        run: its windows.
        block: its energy block, as in a result.
        against: its comparison with the settings as found; None if the point is the settings as found.
        fast_enough: whether its throughput is within the allowed slowdown.
    """

    point: Point
    run: Run
    block: EnergyBlock
    against: Pairing | None
    fast_enough: bool

    @property
    def ratio(self) -> float | None:
        """Joules per row, divided by those of the settings as found; None if either was not measured."""
        return 1.0 if self.against is None else self.against["ratio"]


@dataclass(frozen=True)
class Stage:
    """One stage: points that were measured in the same blocks; the settings as found are the first point."""

    name: StageName
    order: Order
    points: list[Measured]


@dataclass(frozen=True)
class Contest:
    """The settings of a search, and the functions that it uses.

    Attributes:
        load: the runtime and the batches that it runs.
        meter: measures the energy.
        device: device of the runtime, such as cuda:0.
        protocol: length of a window, and number of windows per point, which is the number of blocks. The coarse stage
            has half as many.
        max_slowdown: highest allowed ratio of the throughput as found to that at a point; None for no limit.
        change: sets the GPU to a point.
        log: called with each line of progress.
    """

    load: Load
    meter: EnergyMeter
    device: str
    protocol: Protocol
    max_slowdown: float | None
    change: Change
    log: Log

    def search(self, scale: Scale, coarse: Sequence[Point]) -> list[Stage]:
        """Run the stages and return them.

        There is no fine stage if no untried points lie next to the best one, and no final stage if no point is better
        than the settings as found.

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
        """Return the point with the lowest ratio of joules per row to the settings as found in the same stage.

        Points that are too slow are left out. Without any other point, return the settings as found.
        """
        every = [one for stage in stages for one in stage.points if one.ratio is not None and one.fast_enough]
        # The last stage that measured a point counts, because it compares the point with its closest neighbours.
        latest = {one.point: one for one in every}
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
    """Return the number of blocks of the coarse stage: half of `blocks`, at least 2, since its points are far apart."""
    return max(blocks // 2, 2)


def least_s(points: int, protocol: Protocol) -> float:
    """Return the shortest possible time of all windows of a search in seconds, for `points` coarse points."""
    # Points per block. In the fine stage: the best point, one on each side, and the settings as found. In the final
    # stage: the best point and the settings as found.
    fine, final = 4, 2
    windows = coarse_blocks(protocol.windows) * (points + 1) + protocol.windows * (fine + final)
    return windows * protocol.window_s
