"""What each product costs in INT8: the noise it adds by itself, and what that does to the logits."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.checkpoint.tokenize import Tokens
from toolchain.graph import constant
from toolchain.int8.calibrate import tapped
from toolchain.int8.quantize import add_int8_copies
from toolchain.tensors import Array, Ranges


@dataclass(frozen=True)
class Product:
    """One matrix product of the encoder.

    `macs`: its share of all multiply-accumulates. `snr_db`: signal to noise at its own output when it alone is in
    INT8 and reads FP32 inputs. `effect` and `drop_points`, None where not measured: distance of the logits from
    FP32's (Distance.rank), and drop of the task's metric to expect, when it alone is in INT8.
    """

    name: str
    kind: str
    macs: float
    snr_db: float
    effect: float | None = None
    drop_points: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record that is kept."""
        return asdict(self)


def measure_noise(load: Callable[[], ir.Model], ranges: Ranges, tokens: Tokens) -> list[Product]:
    """Return every product with its share of the work and its own noise, in graph order: one pass over the rows.

    `load` gives a new copy of the float graph that `ranges` were made from.
    """
    model = load()
    products = list(graph.nodes(model, "MatMul"))
    kinds = {str(node.name): "linear" if constant(node.inputs[1]) is not None else "attention" for node in products}
    exact = {str(node.name): str(node.outputs[0].name) for node in products}
    left = {str(node.name): str(node.inputs[0].name) for node in products if node.inputs[0] is not None}
    noisy = add_int8_copies(model, ranges)
    signal, noise, macs = ({name: 0.0 for name in kinds} for _ in range(3))
    wanted = list(dict.fromkeys([*exact.values(), *noisy.values(), *left.values()]))
    for values in tapped(model, wanted, tokens, text="measuring noise"):
        for name in kinds:
            true = values[exact[name]]
            signal[name] += energy(true)
            noise[name] += energy(values[noisy[name]] - true)
            macs[name] += true.size * values[left[name]].shape[-1]
    total = sum(macs.values())
    return [Product(name, kind, macs[name] / total, decibel(signal[name], noise[name])) for name, kind in kinds.items()]


def decibel(signal: float, noise: float) -> float:
    """Return 10 log10 of their ratio; a product without noise, or without signal, counts as 150 dB."""
    return float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else 150.0


def energy(array: Array) -> float:
    """Return the sum of squares."""
    return float(np.square(array, dtype=np.float64).sum())
