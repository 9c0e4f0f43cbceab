"""The healed weights of an INT8 bundle: weights that `toolchain heal` adjusted to make the INT8 graphs more accurate.

They are float32 weights of the smoothed graph (model.onnx after SmoothQuant), and are stored in a file of their own.
model.onnx keeps the checkpoint's weights, because it is the reference. An INT8 graph that healing did not improve keeps
them too.
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

# The files for which the weights were healed. Healed weights are removed when one of these files changes.
MADE_OF = ("model.onnx", "calibration.json")

# The graphs that can have healed weights: the graph for CPUs, and the graph for TensorRT. Views and engines are made
# from the graph for TensorRT, so they have its weights.
OF_CPU, OF_TENSORRT = GRAPHS = ("model.int8.cpu.onnx", "model.int8.onnx")


def add_healed(
    made: "BundleWriter", weights: Mapping[str, Array], record: HealRecord, learnt: Iterable[str]
) -> HealRecord:
    """Write healed weights into the new version of a bundle, as its step `heal`, and return the step's record.

    `weights` are float32, by their name in the smoothed graph. `learnt` are the digests of the rows that the weights
    were rounded, chosen or trained on.
    """
    from safetensors.numpy import save

    def run(folder: Path) -> HealRecord:
        write_bytes(folder / FILE, save({name: array for name, array in weights.items()}))
        write_learnt(folder / OF_HEAL, learnt)
        return record

    return made.step(STEP, {"weights": sorted(weights), "made_of": record["made_of"]}, run, redo=True)


def graph_of(file: str) -> str:
    """Return the INT8 graph, one of GRAPHS, whose weights an INT8 file has, such as a view (views.py) or a plan."""
    return OF_CPU if file == OF_CPU else OF_TENSORRT


def healed_graphs(steps: Mapping[str, StepRecord]) -> frozenset[str]:
    """Return the names of a bundle's graphs that have healed weights, from its records of steps; may be empty."""
    return frozenset(steps[STEP]["record"].get("graphs", GRAPHS)) if STEP in steps else frozenset()


def carry_healed(made: "BundleWriter") -> str | None:
    """Copy the healed weights of a bundle's old version to the new one, if model.onnx and the ranges are unchanged.

    Return a digest of the weights and of the names of the graphs that have them; None if there are no healed weights.
    """
    if STEP not in made.steps:
        known = made.old.manifest["steps"].get(STEP) if made.old else None
        if known is None:
            return None
        if known["record"]["made_of"] != made_of(made.artefacts):
            log.warning(
                "the bundle's healed weights belong to another graph or to other ranges and are removed. "
                "Run toolchain heal again"
            )
            return None
        if not made.retain(STEP):
            return None
    digest, graphs = made.artefacts[FILE], healed_graphs(made.steps)
    return digest if graphs == {*GRAPHS} else sha256_json([digest, sorted(graphs)])


def made_of(artefacts: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of the files MADE_OF, by file name; healed weights fit only these versions of the files."""
    return {name: artefacts[name] for name in MADE_OF}


def healed_of(
    folder: Path, artefacts: Mapping[str, str], steps: Mapping[str, StepRecord], graph: str
) -> dict[str, Array] | None:
    """Return the healed weights of `graph`, one of GRAPHS, by name; None if this graph has the checkpoint's weights.

    `artefacts` and `steps` are the keys of the bundle's manifest. For errors, see `_read`.
    """
    return _read(folder / FILE, artefacts[FILE]) if FILE in artefacts and graph in healed_graphs(steps) else None


def _read(file: Path, sha256: str) -> dict[str, Array]:
    """Return healed weights, by name, from their file, whose digest must be `sha256`.

    Raises:
        InputError: the file is missing, or differs from its digest.
    """
    from safetensors.numpy import load

    return dict(load(read_checked(file, sha256)))


def put_weights(model: "ir.Model", weights: Mapping[str, Array]) -> None:
    """Replace weights of a smoothed graph, in place, by the given weights of the same names.

    Raises:
        InputError: the graph has no weight of one of these names and its shape.
    """
    import onnx_ir as ir

    for name, array in weights.items():
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None or tuple(value.const_value.shape.numpy()) != array.shape:
            raise InputError(
                f"{FILE}: the graph has no weight {name} of this shape. Run toolchain heal on the bundle again."
            )
        value.const_value = ir.tensor(array, name=name)
