"""The Q/DQ graph of a bundle, made from model.onnx and calibration.json.

The step `quantize` (steps.py) and the INT8 views (views.py) make their files from it.
"""

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
    """Return the graph of the bundle in `folder` after SmoothQuant, in float32, with its calibration.

    The third value is the number of Mul nodes that smoothing added. `healed` are weights by name, which replace the
    checkpoint's weights (bundle/healed.py).
    """
    calibration = read_calibration(folder / "calibration.json")
    model = graph.load(folder / "model.onnx")
    muls = smooth(model, calibration.smoothing)
    graph.tidy(model)  # merges equal constants first, because healed weights have the names of the merged graph
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
    """Return the smoothed graph of the bundle in `folder` with Q/DQ nodes, and the record of what was quantized.

    The tensors between the Q/DQ nodes are float32. `keep` and `residual` are options of the recipe; None means the
    value that calibration chose, which for `residual` is used in INT8 only. For `healed`, see `smoothed_graph`: the
    scales of weights are computed from the healed weights, and the scales of activations do not change.

    In the graph for TensorRT, the last layer is computed for the first token only. In the graph for CPUs, the passes of
    graph/cpu.py do the same later.
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
    """Return the names of the GEMMs that are excluded from quantization.

    `named` is the value of `--keep`; None means that it was not given. In the graph for TensorRT, it replaces `chosen`,
    the GEMMs that calibration chose to exclude, even if it is empty. In the graph for CPUs, `chosen` is not used: it
    was chosen by the error of the graph for TensorRT, most of which comes from attention, and on a CPU attention always
    stays in floating point, where it is also faster.
    """
    if scheme.for_tensorrt:
        return find_gemms(model, ",".join(chosen) if named is None else named)
    attention = [str(node.name) for node in attention_gemms(model)]
    return list(dict.fromkeys([*attention, *find_gemms(model, named)]))
