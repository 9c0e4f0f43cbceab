"""Quantization: Q/DQ nodes around the GEMMs of a float graph, for TensorRT or for ONNX Runtime on a CPU.

The graphs of all runtimes use the same calibration ranges. The quantizer quantizes the inputs of all linear layers in
the encoder and of both attention GEMMs, and the weights of the linear layers. Embeddings, the addition of the mask,
LayerNorm and the classification head stay in floating point.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.base.tensors import INT8_LEVELS, Array, Range, Ranges
from toolchain.errors import InputError
from toolchain.graph import add_initializer, constant
from toolchain.graph.first_token import FIRST
from toolchain.graph.fp16 import QDQ_OPSET
from toolchain.graph.gemms import activation_inputs, is_probabilities
from toolchain.recipe.tables import QUANTIZED
from toolchain.records.bundle import QuantizedGemms

# The range of softmax is 0..1 for all data, so it is not calibrated. In int8, the scale is 1/127.
PROBABILITIES = Range(amax=1.0, low=0.0, high=1.0)


@dataclass(frozen=True)
class QdqScheme:
    """The runtime that a quantized graph is for, and the types of a GEMM's inputs.

    Both inputs have the number type `precision`, except that the left one is uint8 if `unsigned_left`.
    """

    name: Literal["tensorrt", "cpu"]
    unsigned_left: bool
    precision: Literal["int8", "fp8"] = "int8"

    @property
    def for_tensorrt(self) -> bool:
        """Whether the graph is for TensorRT. The parts that are not quantized are then float16, not float32."""
        return self.name == "tensorrt"


# Symmetric int8 for both inputs, because explicit quantization allows no zero point (NVIDIA TensorRT documentation,
# "Working with Quantized Types").
TENSORRT = QdqScheme("tensorrt", unsigned_left=False)

# uint8 for the left input: on x86, ONNX Runtime's int8 x int8 GEMM is many times slower than uint8 x int8.
CPU = QdqScheme("cpu", unsigned_left=True)

# FP8 (E4M3) for both inputs. The amax maps to 448, the largest E4M3 number.
FP8 = QdqScheme("tensorrt", unsigned_left=False, precision="fp8")

# Precision -> the graph files of a bundle that have Q/DQ nodes, with their schemes. The graph for TensorRT comes first.
SCHEMES: dict[str, dict[str, QdqScheme]] = {
    "int8": {"model.int8.onnx": TENSORRT, "model.int8.cpu.onnx": CPU},
    "fp8": {"model.fp8.onnx": FP8},
}


def typed_scheme(precision: str) -> QdqScheme:
    """Return the scheme of the TensorRT graph in a precision; the INT8 scheme if the precision has no Q/DQ graph."""
    return next(iter(SCHEMES.get(precision, SCHEMES["int8"]).values()))


def quantize(
    model: ir.Model, ranges: Ranges, scheme: QdqScheme, *, keep: Collection[str] = (), residual: bool = False
) -> QuantizedGemms:
    """Put Q/DQ nodes around the GEMMs of a float graph, in place; return the numbers of quantized GEMMs.

    The GEMMs named in `keep` stay in floating point. With `residual`, residual additions also read the quantized
    tensors that GEMMs read. A GPU then moves fewer bytes, and the model loses accuracy.

    Scales are float32 here: amax / 127, (high - low) / 255 for uint8, or amax / 448 for FP8. The graph for TensorRT is
    later converted to float16 (graph/fp16.py), which rounds the scales. So those in model.int8.onnx are not exactly
    amax / 127.

    Raises:
        InputError: a tensor of the graph has no range.
    """
    gemms = [node for node in graph.nodes(model, "MatMul") if node.name not in keep]
    linear = [node for node in gemms if constant(node.inputs[1]) is not None]
    for value, position, readers in activation_inputs(gemms):
        known = _range_of(value, ranges)
        replacement = _quantized(model, value, known, scheme, unsigned=scheme.unsigned_left and position == 0)
        for node in readers:
            node.replace_input_with(position, replacement)
    largest = _largest_weights(linear) if scheme.precision == "fp8" else {}
    for node in linear:
        node.replace_input_with(1, _quantized_weight(model, node, largest.get(node)))
    residuals = _quantize_residuals(model) if residual else 0
    if scheme.precision == "fp8":
        model.graph.opset_imports[""] = max(QDQ_OPSET, model.graph.opset_imports[""])
    graph.tidy(model)
    return {
        "target": scheme.name,
        "linear": len(linear),
        "attention": len(gemms) - len(linear),
        "residual": residuals,
        "kept": sorted(keep),
    }


def _quantize_residuals(model: ir.Model) -> int:
    """Make residual additions read the outputs of existing Q/DQ pairs; return the number of inputs that changed."""
    count = 0
    for norm in graph.nodes(model, "LayerNormalization"):
        add = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        for node in _residual_readers(add) if add is not None and add.op_type == "Add" else ():
            for index, value in enumerate(node.inputs):
                if (dequantized := _dequantized(value)) is not None:
                    node.replace_input_with(index, dequantized)
                    count += 1
    return count


def _residual_readers(add: ir.Node) -> list[ir.Node]:
    """Return a residual addition, and the Mul nodes before it that smoothing has added (graph/smooth.py)."""
    makers = (value.producer() for value in add.inputs if value is not None)
    return [add, *(node for node in makers if node is not None and node.op_type == "Mul")]


def _dequantized(value: ir.Value | None) -> ir.Value | None:
    """Return the output of the Q/DQ pair that reads a value, or None if there is no such pair."""
    uses = value.uses() if value is not None else ()
    pair = next((use.node for use in uses if use.node.op_type == "QuantizeLinear"), None)
    return next(iter(pair.outputs[0].uses())).node.outputs[0] if pair is not None else None


def add_int8_copies(model: ir.Model, ranges: Ranges) -> dict[str, str]:
    """Add for each GEMM a copy with quantized inputs, in place; return name of the GEMM -> name of the copy's output.

    The GEMMs themselves stay in float32, so that the error of each copy is that of one GEMM.

    Raises:
        InputError: an input of a GEMM has no range.
    """
    read: dict[ir.Value, ir.Value] = {}
    outputs = {}
    for node in graph.nodes(model, "MatMul"):
        for value in node.inputs:
            if value is not None and value not in read:
                fixed = constant(value) is not None
                read[value] = (
                    _quantized_weight(model, node)
                    if fixed
                    else _quantized(model, value, _range_of(value, ranges), TENSORRT, unsigned=False)
                )
        inputs = [read[value] for value in node.inputs if value is not None]
        copy = ir.node("MatMul", inputs, name=f"{node.name}.int8")
        copy.outputs[0].name = outputs[str(node.name)] = f"{node.name}.int8.output"
        model.graph.insert_after(node, copy)
    return outputs


def _range_of(value: ir.Value, ranges: Ranges) -> Range:
    # A tensor that holds the first tokens of another tensor has the range of that tensor.
    known = PROBABILITIES if is_probabilities(value) else ranges.get(str(value.name).removesuffix(FIRST))
    if known is None:
        raise InputError(f"calibration: there is no range for {value.name}. Calibrate this graph again.")
    return known


def _quantized(model: ir.Model, value: ir.Value, known: Range, scheme: QdqScheme, *, unsigned: bool) -> ir.Value:
    """Return the output of a new Q/DQ pair that reads `value`.

    The quantized type is int8 or FP8 with zero point 0 or, with `unsigned`, uint8 with a zero point from the range
    `known`.
    """
    if unsigned:
        # Zero must be represented exactly, because padding, ReLU and masked probabilities produce many zeros.
        low, high = min(known.low, 0.0), max(known.high, 0.0)
        scale = (high - low) / 255 or known.scale
        zero = np.array(round(-low / scale), np.uint8)
    else:
        scale, zero = known.amax / QUANTIZED[scheme.precision].largest, np.array(0, number_type(scheme.precision))
    stem = f"{value.name}.{'uint8' if unsigned else scheme.precision}"
    return _pair(
        model,
        value,
        after=value.producer(),
        stem=stem,
        scale=add_initializer(model, f"{stem}.scale", np.array(scale, np.float32)),
        zero=add_initializer(model, f"{stem}.zero_point", zero),
    )


def _pair(
    model: ir.Model, value: ir.Value, *, after: ir.Node | None, stem: str, scale: ir.Value, zero: ir.Value
) -> ir.Value:
    """Insert a Q/DQ pair after the node `after`, or at the beginning of the graph if it is None; return its output."""
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{stem}.quantize")
    quantize.outputs[0].name, quantize.outputs[0].shape = f"{stem}.quantized", value.shape
    quantize.outputs[0].type = ir.TensorType(zero.dtype or ir.DataType.INT8)
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"{stem}.dequantize")
    dequantize.outputs[0].name = f"{stem}.dequantized"
    dequantize.outputs[0].shape, dequantize.outputs[0].type = value.shape, ir.TensorType(ir.DataType.FLOAT)
    if after is None:
        model.graph.insert_before(model.graph[0], [quantize, dequantize])
    else:
        model.graph.insert_after(after, [quantize, dequantize])
    return dequantize.outputs[0]


def quantize_weight(weight: Array) -> tuple[Array, Array]:
    """Return weights as symmetric int8, [in, out], and a scale for each output channel, float32 [out]."""
    scale = (np.abs(weight).max(axis=0) / INT8_LEVELS).astype(np.float32)
    scale[scale == 0] = 1  # all weights of the channel are 0, or so small that the scale is 0 in float32
    return np.clip(np.rint(weight / scale), -INT8_LEVELS, INT8_LEVELS).astype(np.int8), scale


def number_type(precision: str) -> Any:
    """Return the numpy dtype of a precision: int8, or onnx_ir's E4M3 for fp8, which numpy lacks."""
    return np.dtype(np.int8) if precision == "int8" else ir.DataType.FLOAT8E4M3FN.numpy()


def fp8_weight(weight: Array, amax: float) -> tuple[Array, Array]:
    """Return weights in E4M3, [in, out], and one scale for all of them, a float32 scalar that maps `amax` to 448.

    One scale is enough, because E4M3 numbers have an exponent: weights that are 2^k times smaller keep as many bits.
    """
    largest = QUANTIZED["fp8"].largest
    scale = np.array(amax / largest or 1, np.float32)
    return np.clip(weight / scale, -largest, largest).astype(number_type("fp8")), scale


def _largest_weights(linear: list[ir.Node]) -> dict[ir.Node, float]:
    """Return linear layer -> largest |weight| of all linear layers that read the same activation.

    These layers then get the same scale. TensorRT-RTX computes query, key and value in one kernel. If their scales
    differ, the kernel stores the sums as float16 before it scales them, and the sums may exceed float16's range.
    """
    amax = {node: float(np.abs(array).max()) for node in linear if (array := constant(node.inputs[1])) is not None}
    read = [(node, node.inputs[0].producer() or node.inputs[0]) for node in linear if node.inputs[0] is not None]
    return {node: max(amax[other] for other, source in read if source is value) for node, value in read}


def _quantized_weight(model: ir.Model, node: ir.Node, fp8_amax: float | None = None) -> ir.Value:
    """Return the output of a new DQ node for the weight of a linear layer.

    The weight is int8 with a scale for each output channel or, with `fp8_amax`, FP8 with a single scale.
    """
    weight = node.inputs[1]
    assert weight is not None
    array = constant(weight)
    assert array is not None
    numbers, scale = quantize_weight(array) if fp8_amax is None else fp8_weight(array, fp8_amax)
    precision = "int8" if fp8_amax is None else "fp8"
    stem = f"{weight.name}.{precision}"
    inputs = [
        add_initializer(model, stem, numbers),
        add_initializer(model, f"{stem}.scale", scale),
        add_initializer(model, f"{stem}.zero_point", np.zeros(scale.shape, number_type(precision))),
    ]
    attributes = {"axis": 1} if scale.ndim else {}
    dequantize = ir.node("DequantizeLinear", inputs, attributes, name=f"{stem}.dequantize")
    dequantize.outputs[0].name = f"{stem}.dequantized"
    dequantize.outputs[0].shape, dequantize.outputs[0].type = weight.shape, ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(node, dequantize)
    return dequantize.outputs[0]
