"""Quantization: Q/DQ nodes around the GEMMs of a float graph, for TensorRT or for ONNX Runtime on a CPU.

Both graphs come from the same calibration ranges. Quantized are the inputs of every linear layer in the encoder and
of both attention GEMMs, and the weights of the linear layers. Embeddings, the addition of the mask, LayerNorm and the
classification head stay in floating point.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.base.tensors import INT8_LEVELS, Array, Range, Ranges
from toolchain.errors import InputError
from toolchain.graph import add_initializer, constant
from toolchain.graph.first_token import FIRST
from toolchain.graph.gemms import activation_inputs, is_probabilities
from toolchain.records.bundle import QuantizedGemms

# Softmax gives 0..1 whatever the data, so its range is not calibrated. The scale is 1/127.
PROBABILITIES = Range(amax=1.0, low=0.0, high=1.0)


@dataclass(frozen=True)
class QdqScheme:
    """The types of a GEMM's inputs: the left one is uint8 if `unsigned_left`, else int8; the right one is int8."""

    name: Literal["tensorrt", "cpu"]
    unsigned_left: bool


# Symmetric int8 on both sides: explicit quantization takes no zero point
# (NVIDIA TensorRT documentation, "Working with Quantized Types").
TENSORRT = QdqScheme("tensorrt", unsigned_left=False)

# uint8 x int8: on x86, ONNX Runtime's int8 x int8 GEMM is many times slower.
CPU = QdqScheme("cpu", unsigned_left=True)


def quantize(
    model: ir.Model, ranges: Ranges, scheme: QdqScheme, *, keep: Collection[str] = (), residual: bool = False
) -> QuantizedGemms:
    """Put Q/DQ nodes around the GEMMs of a float graph, in place; the GEMMs named in `keep` stay in floating point.

    With `residual` the residual additions read the INT8 that the GEMMs read too. That moves fewer bytes on a GPU and
    costs accuracy.

    Scales are float32 here: amax / 127, or (high - low) / 255 for uint8. The graph for TensorRT is later typed as
    float16 (graph/fp16.py), which rounds them to float16, so model.int8.onnx does not hold amax / 127 exactly.

    Raises:
        InputError: a tensor of the graph has no range.
    """
    gemms = [node for node in graph.nodes(model, "MatMul") if node.name not in keep]
    linear = [node for node in gemms if constant(node.inputs[1]) is not None]
    for value, position, readers in activation_inputs(gemms):
        unsigned = scheme.unsigned_left and position == 0
        replacement = _quantized(model, value, _range_of(value, ranges), unsigned=unsigned)
        for node in readers:
            node.replace_input_with(position, replacement)
    for node in linear:
        node.replace_input_with(1, _quantized_weight(model, node))
    residuals = _quantize_residuals(model) if residual else 0
    graph.tidy(model)
    return {
        "target": scheme.name,
        "linear": len(linear),
        "attention": len(gemms) - len(linear),
        "residual": residuals,
        "kept": sorted(keep),
    }


def _quantize_residuals(model: ir.Model) -> int:
    """Let residual additions read a dequantized value where there is one; return their number."""
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
    """Return a residual addition and the Mul nodes before it, by which smoothing restores a value (graph/smooth.py)."""
    makers = (value.producer() for value in add.inputs if value is not None)
    return [add, *(node for node in makers if node is not None and node.op_type == "Mul")]


def _dequantized(value: ir.Value | None) -> ir.Value | None:
    """Return a value after its Q/DQ pair, or None if it has none."""
    uses = value.uses() if value is not None else ()
    pair = next((use.node for use in uses if use.node.op_type == "QuantizeLinear"), None)
    return next(iter(pair.outputs[0].uses())).node.outputs[0] if pair is not None else None


def add_int8_copies(model: ir.Model, ranges: Ranges) -> dict[str, str]:
    """Add beside each GEMM a copy that reads the same float inputs in INT8; return GEMM -> output of its copy.

    Raises:
        InputError: an input has no range.
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
                    else _quantized(model, value, _range_of(value, ranges), unsigned=False)
                )
        inputs = [read[value] for value in node.inputs if value is not None]
        copy = ir.node("MatMul", inputs, name=f"{node.name}.int8")
        copy.outputs[0].name = outputs[str(node.name)] = f"{node.name}.int8.output"
        model.graph.insert_after(node, copy)
    return outputs


def _range_of(value: ir.Value, ranges: Ranges) -> Range:
    # The first token of a tensor has the scale of the whole tensor.
    known = PROBABILITIES if is_probabilities(value) else ranges.get(str(value.name).removesuffix(FIRST))
    if known is None:
        raise InputError(f"calibration: no range for {value.name}. Calibrate this graph again.")
    return known


def _quantized(model: ir.Model, value: ir.Value, known: Range, *, unsigned: bool) -> ir.Value:
    """Return `value` after a Q/DQ pair: symmetric int8, or uint8 with its own zero point."""
    if unsigned:
        # Zero must be exact, because padding, ReLU and masked probabilities hold many zeros.
        low, high = min(known.low, 0.0), max(known.high, 0.0)
        scale = (high - low) / 255 or known.scale
        zero = np.array(round(-low / scale), np.uint8)
    else:
        scale, zero = known.scale, np.array(0, np.int8)
    stem = f"{value.name}.{'uint8' if unsigned else 'int8'}"
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
    """Insert a Q/DQ pair behind the node `after`, or at the graph's beginning; return the dequantized value."""
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
    """Return symmetric int8 weights [in, out] and a float32 scale for each output channel [out]."""
    scale = (np.abs(weight).max(axis=0) / INT8_LEVELS).astype(np.float32)
    scale[scale == 0] = 1  # the channel holds only zeros, or numbers too small for float32
    return np.clip(np.rint(weight / scale), -INT8_LEVELS, INT8_LEVELS).astype(np.int8), scale


def _quantized_weight(model: ir.Model, node: ir.Node) -> ir.Value:
    """Return the dequantized weight of a linear layer, stored as int8 with a scale for each output channel."""
    weight = node.inputs[1]
    assert weight is not None
    array = constant(weight)
    assert array is not None
    integers, scale = quantize_weight(array)
    stem = f"{weight.name}.int8"
    inputs = [
        add_initializer(model, stem, integers),
        add_initializer(model, f"{stem}.scale", scale),
        add_initializer(model, f"{stem}.zero_point", np.zeros(scale.shape, np.int8)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": 1}, name=f"{stem}.dequantize")
    dequantize.outputs[0].name = f"{stem}.dequantized"
    dequantize.outputs[0].shape, dequantize.outputs[0].type = weight.shape, ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(node, dequantize)
    return dequantize.outputs[0]
