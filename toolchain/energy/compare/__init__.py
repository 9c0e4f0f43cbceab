"""`compare --energy`: measure the energy of several bundles and backends, and compare them.

A contender is one bundle on one backend. All contenders are open at the same time. They are measured in blocks, with
one window of each contender in random order, and compared block by block.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from toolchain.base.files import write_json
from toolchain.energy.compare.blocks import measure, shuffle
from toolchain.energy.compare.contenders import Contender, Log, find_contenders, find_rows, opened
from toolchain.energy.compare.record import Comparison, record_of
from toolchain.energy.components import lacking
from toolchain.energy.evaluation import protocol_of
from toolchain.errors import MachineError
from toolchain.evaluation.target import EVAL_RESULTS
from toolchain.meters.energy import EnergyMeter, open_meter
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues
from toolchain.records.energy_comparison import EnergyComparison, SavedEnergyComparison

# Default number of blocks. With 10 blocks, the minimum detectable difference is 0.99 times the standard deviation of
# the blocks' log ratios; with 5 blocks, it is 1.66 times.
BLOCKS = 10

# Name of the subfolder of the results folder that has the comparisons. The results of `eval` are files in the results
# folder itself.
FOLDER = "energy"


def compare_energy(
    places: Sequence[Path], backends: Sequence[str], changes: RecipeValues, *, log: Log
) -> SavedEnergyComparison:
    """Measure every bundle on every backend, block by block; write the comparison to a file and return it.

    A contender is not run if the energy of its device cannot be measured.

    Args:
        places: bundles, the baseline's first.
        backends: backends, the baseline's first.
        changes: options as in a recipe.
        log: called with each line of progress.

    Raises:
        MachineError: the contenders do not fit into memory together, or energy is required and cannot be measured.
        ToolchainError: see errors.py.
    """
    recipe = Recipe.make(changes)
    protocol = dataclasses.replace(protocol_of(recipe), windows=recipe.energy_windows or BLOCKS)
    contenders = find_contenders(places, backends, changes, log=log)
    comparison = Comparison(contenders, find_rows(contenders, seed=recipe.seed), protocol)
    with open_meter(_device(contenders)) as meter:
        able = [one for one in contenders if _is_measured(one, meter, required=recipe.require_energy)]
        if able:
            comparison.order = shuffle([one.name for one in able], protocol.windows, seed=recipe.seed)
            with opened(able, comparison.rows, single=recipe.rate is not None, seed=recipe.seed, log=log) as loads:
                comparison.slots = {name: load.batch_slots for name, load in loads.items()}
                comparison.runs = measure(loads, comparison.order, meter, protocol, log=log)
        record = record_of(comparison, meter)
    return _saved(record, contenders)


def _device(contenders: Sequence[Contender]) -> str:
    """Return the device whose energy is measured: the first GPU that a contender uses, or cpu if none uses one."""
    return next((one.target.device for one in contenders if one.target.device != "cpu"), "cpu")


def _is_measured(contender: Contender, meter: EnergyMeter, *, required: bool) -> bool:
    missing = lacking(contender.target.device, meter)
    if missing and required:
        raise _no_energy(contender.name, *missing)
    return missing is None


def judge(record: EnergyComparison) -> None:
    """Check for --require-energy that the energy of every contender was measured.

    Raises:
        MachineError: the energy of a contender was not measured; the message names the first such contender.
    """
    for one in record["contenders"]:
        if one["per_inference_j"] is None:
            raise _no_energy(one["name"], one["reason"], one["detail"])


def _no_energy(name: str, reason: str | None, detail: str | None) -> MachineError:
    why = f"{reason}: {detail}" if detail else reason
    return MachineError(f"{name}: its energy cannot be measured ({why}). `toolchain doctor` shows the sensors.")


def _saved(record: EnergyComparison, contenders: Sequence[Contender]) -> SavedEnergyComparison:
    """Write the record to the bundle's results or, if there are several bundles, to eval/results here."""
    bundles = {contender.bundle for contender in contenders}
    folder = contenders[0].target.folder if len(bundles) == 1 else EVAL_RESULTS
    moment = record["created"][:19].replace(":", "").replace("-", "")
    file = folder / FOLDER / f"{record['task']}-{record['split']}-{moment}.json"
    write_json(file, record)
    return {**record, "file": str(file)}
