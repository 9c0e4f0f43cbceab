"""The healed weights of an INT8 bundle: what `toolchain heal` chose, from which its INT8 graphs are made.

They are the float32 weights of the smoothed graph, in a file of their own. model.onnx keeps the checkpoint's weights,
because it is the reference, and so does an INT8 graph that healing did not help.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.base.files import read_checked, sha256_json, write_bytes
from toolchain.base.tensors import Array
from toolchain.bundle.learnt import OF_HEAL, write_learnt
from toolchain.errors import InputError
from toolchain.records.bundle import StepRecord
from toolchain.records.heal import HealRecord

if TYPE_CHECKING:
    import onnx_ir as ir

    from toolchain.bundle.writer import BundleWriter

log = logging.getLogger(__name__)

STEP = "heal"
FILE = "healed.safetensors"

# Weights are healed for these files, and belong to no others.
MADE_OF = ("model.onnx", "calibration.json")

# The graphs that can have healed weights. Views and engines are made as the one for TensorRT is.
OF_CPU, OF_TENSORRT = GRAPHS = ("model.int8.cpu.onnx", "model.int8.onnx")


def add_healed(
    made: "BundleWriter", weights: Mapping[str, Array], record: HealRecord, learnt: Iterable[str]
) -> HealRecord:
    """Write healed weights, float32 by their name in the smoothed graph, as a step of a new version of a bundle.

    `learnt` are the digests of the rows that they were rounded, chosen or trained on.
    """
    from safetensors.numpy import save

    def run(folder: Path) -> HealRecord:
        write_bytes(folder / FILE, save({name: array for name, array in weights.items()}))
        write_learnt(folder / OF_HEAL, learnt)
        return record

    return made.step(STEP, {"weights": sorted(weights), "made_of": record["made_of"]}, run, redo=True)


def graph_of(file: str) -> str:
    """Return the one of GRAPHS that an INT8 file of a bundle is, or is made of."""
    return OF_CPU if file == OF_CPU else OF_TENSORRT


def healed_graphs(steps: Mapping[str, StepRecord]) -> frozenset[str]:
    """Return the graphs of a bundle with these steps that have healed weights; none without any."""
    return frozenset(steps[STEP]["record"].get("graphs", GRAPHS)) if STEP in steps else frozenset()


def carry_healed(made: "BundleWriter") -> str | None:
    """Carry the healed weights of the old version over if its graph and ranges are still the same.

    Return a digest of them and of the graphs that have them; None if the bundle has none.
    """
    if STEP not in made.steps:
        known = made.old.manifest["steps"].get(STEP) if made.old else None
        if known is None:
            return None
        if known["record"]["made_of"] != made_of(made.artefacts):
            log.warning(
                "its healed weights are of another graph or other ranges, and are dropped: heal the bundle again"
            )
            return None
        if not made.retain(STEP):
            return None
    digest, graphs = made.artefacts[FILE], healed_graphs(made.steps)
    return digest if graphs == {*GRAPHS} else sha256_json([digest, sorted(graphs)])


def made_of(artefacts: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of the files that healed weights belong to."""
    return {name: artefacts[name] for name in MADE_OF}


def healed_of(
    folder: Path, artefacts: Mapping[str, str], steps: Mapping[str, StepRecord], graph: str
) -> dict[str, Array] | None:
    """Return the weights that one of GRAPHS has in a bundle with `artefacts` and `steps`; None for the checkpoint's.

    For errors, see `_read`.
    """
    return _read(folder / FILE, artefacts[FILE]) if FILE in artefacts and graph in healed_graphs(steps) else None


def _read(file: Path, sha256: str) -> dict[str, Array]:
    """Return healed weights from their file.

    Raises:
        InputError: the file is missing, or differs from its digest.
    """
    from safetensors.numpy import load

    return dict(load(read_checked(file, sha256)))


def put_weights(model: "ir.Model", weights: Mapping[str, Array]) -> None:
    """Put weights in the place of those of a smoothed graph.

    Raises:
        InputError: the graph lacks one of the name and shape.
    """
    import onnx_ir as ir

    for name, array in weights.items():
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None or tuple(value.const_value.shape.numpy()) != array.shape:
            raise InputError(f"{FILE}: {name} is not a weight of this graph. Heal the bundle again.")
        value.const_value = ir.tensor(array, name=name)
