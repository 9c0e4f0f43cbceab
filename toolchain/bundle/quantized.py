"""The Q/DQ graph of a bundle, from model.onnx and calibration.json; the steps and the views make their files of it."""

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from toolchain import graph
from toolchain.base.tensors import Array
from toolchain.bundle.healed import put_weights
from toolchain.graph.first_token import first_token
from toolchain.graph.gemms import attention_gemms, find_gemms
from toolchain.graph.smooth import smooth
from toolchain.int8.calibrate import Calibration, read_calibration
from toolchain.int8.quantize import QdqScheme, quantize
from toolchain.records.bundle import QuantizedView


def smoothed_graph(folder: Path, healed: Mapping[str, Array] | None = None) -> tuple[ir.Model, Calibration, int]:
    """Return the smoothed float32 graph of the bundle in `folder`, its calibration, and the number of Muls added.

    `healed` are the weights that take the place of the checkpoint's (bundle/healed.py).
    """
    calibration = read_calibration(folder / "calibration.json")
    model = graph.load(folder / "model.onnx")
    muls = smooth(model, calibration.smoothing)
    graph.tidy(model)  # equal constants become one before a weight has a value of its own
    put_weights(model, healed or {})
    return model, calibration, muls


def quantized_graph(
    folder: Path,
    scheme: QdqScheme,
    *,
    keep: str | None,
    residual: str | None,
    healed: Mapping[str, Array] | None = None,
) -> tuple[ir.Model, QuantizedView]:
    """Return the smoothed and quantized float32 graph of the bundle in `folder`, and the record of what was quantized.

    `keep` and `residual` are those of the recipe; None is the choice of the calibration, whose `residual` is for INT8
    alone. For `healed`, see `smoothed_graph`: scales of weights follow the healed ones, and those of activations stay.

    The graph for TensorRT computes the last layer for the first token only. The CPU view does so too, by its own
    passes (graph/cpu.py).
    """
    model, calibration, muls = smoothed_graph(folder, healed)
    kept = _kept(model, keep, calibration.about.get("keep", []), scheme)
    integer, passes = False, {}
    if scheme.for_tensorrt:
        integer = scheme.precision == "int8" and (residual or calibration.about.get("residual")) == "int8"
        passes = {"first_token": first_token(model)}
    gemms = quantize(model, calibration.ranges, scheme, keep=kept, residual=integer)
    view: QuantizedView = {**gemms, "smoothing_muls": muls, "passes": passes}  # type: ignore[typeddict-item]  # optional
    return model, view


def _kept(model: ir.Model, named: str | None, chosen: list[str], scheme: QdqScheme) -> list[str]:
    """Return the names of the GEMMs that stay in floating point.

    `named` is the user's `--keep`, None if it was not given; it replaces the choice of the calibration, even if it is
    empty. The calibration chose by the error of the graph for TensorRT, most of which comes from attention. On a CPU
    attention always stays in floating point, where it is also faster.
    """
    if scheme.for_tensorrt:
        return find_gemms(model, ",".join(chosen) if named is None else named)
    attention = [str(node.name) for node in attention_gemms(model)]
    return list(dict.fromkeys([*attention, *find_gemms(model, named)]))
