"""`toolchain clocks`: find the SM clock or the power limit with the lowest energy per row.

Without --apply, the command only prints the plan of the search: it changes no setting and measures nothing.
"""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolchain.base.files import write_json
from toolchain.data.rows import load_rows
from toolchain.energy.clocks.allowed import (
    FIRST_PROCESS,
    NO_LOCK,
    NO_PERSISTENCE,
    Watch,
    hindrances,
    not_measurable,
    require,
)
from toolchain.energy.clocks.contest import Contest, least_s
from toolchain.energy.clocks.points import Point, Scale, parse_clocks, parse_lock, scale
from toolchain.energy.clocks.record import Search, record_of
from toolchain.energy.compare import BLOCKS, FOLDER
from toolchain.energy.compare.contenders import Contender, Log, opened
from toolchain.energy.components import lacking
from toolchain.energy.evaluation import LOAD_ROWS, protocol_of
from toolchain.energy.text import reason
from toolchain.errors import MachineError, UsageError
from toolchain.evaluation.target import Target, find_target
from toolchain.meters import gpu_state, nvml
from toolchain.meters.energy import EnergyMeter, open_meter
from toolchain.meters.guardian import Guarded, guarded
from toolchain.meters.nvml import Device, Unavailable
from toolchain.meters.settings import power_limits, read_settings, supported_clocks
from toolchain.recipe.options import RecipeValues
from toolchain.records.clocks import ClocksRecord, SavedClocksRecord


@dataclass(frozen=True)
class Asked:
    """The options of `toolchain clocks`.

    Attributes:
        points: number of SM clocks that the first stage compares.
        sm_clocks: SM clocks in MHz, separated by commas, for the first stage; None lets `points` choose them.
        power: whether power limits are compared too.
        max_slowdown: highest allowed ratio of the throughput at the original settings to that at a point; None for no
            limit.
        locked: the clock lock in MHz that the GPU has now, such as 900 or 900,1200; None if it has no lock.
        apply: whether to set clocks and measure; if False, the search is only planned.
    """

    points: int = 8
    sm_clocks: str | None = None
    power: bool = False
    max_slowdown: float | None = None
    locked: str | None = None
    apply: bool = False

    def check(self) -> None:
        """Check that the numbers are in range.

        Raises:
            UsageError: a number is out of range; the message names its option.
        """
        if not 2 <= self.points <= 100:
            raise UsageError(f"--points {self.points}: the number must be from 2 to 100.")
        if self.max_slowdown is not None and not self.max_slowdown >= 1:
            raise UsageError(
                f"--max-slowdown {self.max_slowdown:g}: the ratio must be at least 1. "
                "With 1.1, a row may take 10 % more time than now."
            )


def find_clock(place: Path | None, changes: RecipeValues, asked: Asked, *, log: Log) -> SavedClocksRecord:
    """Find the SM clock or power limit with the lowest energy per row, and return the record of the search.

    Without `asked.apply`, nothing is set or measured, and the record has only the plan.

    Args:
        place: a bundle; None for the one built last.
        changes: options as in a recipe; they choose what runs.
        asked: options of the search.
        log: called with each line of progress.

    Raises:
        MachineError: the runtime does not use a GPU of this machine, the GPU's clocks or energy cannot be read or set,
            or its original settings could not be restored.
        UsageError: an option is out of range, or the GPU does not support a clock.
        ToolchainError: see `find_target`.
    """
    asked.check()
    target = find_target(changes, place, prefer_plan=True, runs=True)
    if target.device == "cpu" or target.remote:
        raise MachineError(
            f"clocks: {target.backend} does not run on a GPU of this machine, and only GPU clocks can be compared. "
            "Choose a backend that uses a GPU: --backend trt, or --device cuda."
        )
    with _no_gpu(target.device), open_meter(target.device) as meter:
        search, range_ = _planned(target, nvml.visible_device(int(target.device.partition(":")[2])), asked)
        if missing := lacking(target.device, meter):
            search.hindrances.append(not_measurable(reason(missing[0])))
        if asked.apply:
            require(search.gpu, search.hindrances)
            _measure(search, range_, meter, log)
        record = record_of(search, meter)
    return _saved(record, target)


@contextmanager
def _no_gpu(device: str) -> Iterator[None]:
    """Turn an error of NVML inside the context into a MachineError for `device`."""
    try:
        yield
    except Unavailable as why:
        raise MachineError(
            f"{device}: its clocks cannot be set ({reason(why.reason)}). Check the GPU with `toolchain doctor`."
        ) from why


def _planned(target: Target, gpu: Device, asked: Asked) -> tuple[Search, Scale]:
    """Return the plan of the search, and all points that the GPU can be set to; nothing is set yet."""
    recipe = target.resolved.recipe
    protocol = dataclasses.replace(protocol_of(recipe), windows=recipe.energy_windows or BLOCKS)
    supported, limits = supported_clocks(gpu), power_limits(gpu) if asked.power else None
    if asked.power and limits is None:
        raise MachineError(f"{gpu.name}: its power limit cannot be set. Leave out --power.")
    range_ = scale(supported, limits)
    planned = range_.coarse(asked.points)
    if asked.sm_clocks:
        planned = [*parse_clocks(asked.sm_clocks, supported), *(one for one in planned if one.power_limit_mw)]
    locked = parse_lock(asked.locked) if asked.locked else None
    notes = [NO_PERSISTENCE] if gpu_state.describe(gpu)["persistence"] is False else []
    notes += [FIRST_PROCESS] if os.getpid() == 1 else []
    return Search(
        target=target,
        gpu=gpu,
        rows=load_rows(target.resolved.task, recipe.split, **recipe.reading).sample(LOAD_ROWS, seed=recipe.seed),
        protocol=protocol,
        supported=supported,
        limits_mw=limits,
        planned=planned,
        least_s=least_s(len(planned), protocol),
        max_slowdown=asked.max_slowdown,
        hindrances=hindrances(gpu),
        notes=[*notes, *([] if locked else [NO_LOCK])],
        before=read_settings(gpu, locked),
    ), range_


def _measure(search: Search, range_: Scale, meter: EnergyMeter, log: Log) -> None:
    """Measure all stages, and restore the GPU's settings; a guardian process restores them if this one is killed."""
    one = Contender(f"{search.target.backend} {search.target.variant}", search.target)
    single, seed = search.protocol.rate is not None, search.protocol.seed
    with opened([one], search.rows, single=single, seed=seed, log=log) as loads:
        watch = Watch(search.gpu)
        with guarded(search.gpu, search.before) as guard:
            contest = Contest(
                load=loads[one.name],
                meter=meter,
                device=search.target.device,
                protocol=search.protocol,
                max_slowdown=search.max_slowdown,
                change=lambda point: _to(point, guard, watch),
                log=log,
            )
            search.stages = contest.search(range_, search.planned)
    search.after = guard.after


def _to(point: Point, guard: Guarded, watch: Watch) -> None:
    watch.check()
    guard.change(point.of(guard.first))


def _saved(record: ClocksRecord, target: Target) -> SavedClocksRecord:
    """Write the record to a file if anything was measured; return it with the file's path, or None as the path."""
    if not record["applied"]:
        return {**record, "file": None}
    moment = record["created"][:19].replace(":", "").replace("-", "")
    file = target.folder / FOLDER / f"clocks-{record['task']}-{record['split']}-{moment}.json"
    write_json(file, record)
    return {**record, "file": str(file)}
