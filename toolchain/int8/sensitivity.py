"""The sensitivity of each GEMM to INT8: the quantization noise at its output, and the effect on the logits."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.base.tensors import Array, Ranges
from toolchain.checkpoint.tokenize import Tokens
from toolchain.graph import constant
from toolchain.int8.calibrate import stream_activations
from toolchain.int8.quantize import add_int8_copies
from toolchain.records.quantization import SensitivityRecord

# Signal-to-noise ratio in dB that is reported for a GEMM without noise or without signal. It is above the highest ratio
# that float32 can resolve, about 144 dB.
NO_NOISE_DB = 150.0


@dataclass(frozen=True)
class Sensitivity:
    """The error that one GEMM of the encoder causes when it alone is in INT8.

    `macs`: its fraction of all multiply-accumulates, 0 to 1. `snr_db`: signal-to-noise ratio at its own output, in dB,
    when its inputs before quantization are exact. `effect`: distance of the logits from FP32 (Distance.rank).
    `drop_points`: expected drop of the task's metric, in points (1/100). The last two are None if not measured.
    """

    name: str
    kind: str
    macs: float
    snr_db: float
    effect: float | None = None
    drop_points: float | None = None

    def to_json(self) -> SensitivityRecord:
        """Return the sensitivity as tune.json stores it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "macs": self.macs,
            "snr_db": self.snr_db,
            "effect": self.effect,
            "drop_points": self.drop_points,
        }


def measure_noise(model: ir.Model, ranges: Ranges, tokens: Tokens) -> list[Sensitivity]:
    """Measure the work (`macs`) and the noise (`snr_db`) of every GEMM in one pass over the rows.

    `model` is the float graph that `ranges` were measured on; it stays unchanged. The result is in graph order.
    """
    model = model.clone()
    gemms = list(graph.nodes(model, "MatMul"))
    kinds = {str(node.name): "linear" if constant(node.inputs[1]) is not None else "attention" for node in gemms}
    exact = {str(node.name): str(node.outputs[0].name) for node in gemms}
    left = {str(node.name): str(node.inputs[0].name) for node in gemms if node.inputs[0] is not None}
    noisy = add_int8_copies(model, ranges)
    signal, noise, macs = ({name: 0.0 for name in kinds} for _ in range(3))
    wanted = list(dict.fromkeys([*exact.values(), *noisy.values(), *left.values()]))
    for values in stream_activations(model, wanted, tokens, text="measuring noise"):
        for name in kinds:
            true = values[exact[name]]
            signal[name] += sum_of_squares(true)
            noise[name] += sum_of_squares(values[noisy[name]] - true)
            macs[name] += true.size * values[left[name]].shape[-1]
    total = sum(macs.values())
    return [
        Sensitivity(name, kind, macs[name] / total, decibel(signal[name], noise[name])) for name, kind in kinds.items()
    ]


def decibel(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise), or NO_NOISE_DB if one of them is 0."""
    return float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else NO_NOISE_DB


def sum_of_squares(array: Array) -> float:
    """Return the sum of squares, added up in float64."""
    return float(np.square(array, dtype=np.float64).sum())
