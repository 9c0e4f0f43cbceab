"""Contenders for the least energy: all open, measured in blocks of random order, paired by block."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolchain.energy.compare.blocks import measure, shuffle
from toolchain.energy.compare.contenders import Contender, Tell, find_contenders, find_rows, opened
from toolchain.energy.compare.record import Match, Record, lacking, record_of
from toolchain.energy.evaluation import protocol_of
from toolchain.errors import MachineError
from toolchain.evaluation.target import EVAL_RESULTS
from toolchain.files import write_json
from toolchain.meters.energy import EnergyMeter, open_meter
from toolchain.recipe import Recipe
from toolchain.runtimes.environment import describe

BLOCKS = 10
"""By default: with 5, a difference must be 1.66 times its blocks' deviation to be detected, with 10 as much as it."""

FOLDER = "energy"
"""Below a folder of results, whose own files are results of `eval`."""


def compare_energy(places: Sequence[Path], backends: Sequence[str], changes: dict[str, Any], *, tell: Tell) -> Record:
    """Measure every bundle on every backend, block by block; save the comparison and return it.

    `changes` are options as in a recipe. A contender whose device cannot be measured is not run.

    Raises:
        MachineError: they do not fit into memory together; or energy is required, and one's cannot be measured.
        ToolchainError: see errors.py.
    """
    recipe = Recipe.make(changes)
    protocol = dataclasses.replace(protocol_of(recipe), windows=recipe.energy_windows or BLOCKS)
    match = Match(find_contenders(places, backends, changes, tell=tell), protocol)
    rows = find_rows(match.contenders, seed=recipe.seed)
    with open_meter(_device(match.contenders)) as meter:
        able = [one for one in match.contenders if _is_measured(one, meter, required=recipe.require_energy)]
        if able:
            match.order = shuffle([one.name for one in able], protocol.windows, seed=recipe.seed)
            with opened(able, rows, single=recipe.rate is not None, seed=recipe.seed, tell=tell) as loads:
                match.slots = {name: load.batch_slots for name, load in loads.items()}
                match.runs = measure(loads, match.order, meter, protocol, tell=tell)
        record = record_of(match, meter)
    resolved = match.contenders[0].target.resolved
    about = {"task": resolved.task.name, "split": resolved.recipe.split, "n": len(rows), "data_sha256": rows.digest}
    return _saved({**record, **about, "environment": describe(), "created": _now()}, match.contenders)


def _device(contenders: Sequence[Contender]) -> str:
    """Return the GPU that they use, or the processor if none does."""
    return next((one.target.device for one in contenders if one.target.device != "cpu"), "cpu")


def _is_measured(contender: Contender, meter: EnergyMeter, *, required: bool) -> bool:
    why = lacking(contender.target.device, meter)
    if why and required:
        raise _no_energy(contender.name, *why)
    return why is None


def judge(record: Record) -> None:
    """Refuse a comparison in which a contender's energy was not measured.

    Raises:
        MachineError: naming the first.
    """
    for one in record["contenders"]:
        if one["per_inference_j"] is None:
            raise _no_energy(one["name"], one["reason"], one["detail"])


def _no_energy(name: str, reason: str, detail: str | None) -> MachineError:
    why = f"{reason}: {detail}" if detail else reason
    return MachineError(f"{name}: its energy cannot be measured ({why}). See `toolchain doctor`.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _saved(record: Record, contenders: Sequence[Contender]) -> Record:
    """Write the record to the bundle's results, or to those of the working folder if there are several bundles."""
    bundles = {contender.bundle for contender in contenders}
    folder = contenders[0].target.folder if len(bundles) == 1 else EVAL_RESULTS
    moment = record["created"][:19].replace(":", "").replace("-", "")
    file = folder / FOLDER / f"{record['task']}-{record['split']}-{moment}.json"
    write_json(file, record)
    return {**record, "file": str(file)}
