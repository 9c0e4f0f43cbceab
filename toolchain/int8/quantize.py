"""Ranges to Q/DQ nodes: what TensorRT takes, and what ONNX Runtime is fast at on a CPU.

Both graphs come from one set of ranges. Quantised are the inputs of every linear layer in the
encoder and of both attention products, and the linear layers' weights. Never quantised are
embeddings, the mask's addition, LayerNorm and the classification head.
"""

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.errors import InputError, UsageError
from toolchain.graph import add_initializer, constant
from toolchain.tensors import INT8_LEVELS, Array, Range, Ranges

PROBABILITIES = Range(amax=1.0, low=0.0, high=1.0)
"""Softmax gives 0..1 whatever the data, so its range is never calibrated: scale 1/127."""


@dataclass(frozen=True)
class QdqScheme:
    """Whether a product's left input is uint8; its right input is int8 on every target."""

    name: str
    unsigned_left: bool


TENSORRT = QdqScheme("tensorrt", unsigned_left=False)
"""Symmetric int8 everywhere: explicit quantisation takes no zero point."""

CPU = QdqScheme("cpu", unsigned_left=True)
"""uint8 x int8: on x86 ONNX Runtime's int8 x int8 product is many times slower."""


def calibrated_tensors(model: ir.Model) -> list[str]:
    """Return the tensors that need a calibrated range, in graph order."""
    products = list(graph.nodes(model, "MatMul"))
    found = (value for value, _, _ in _activations(products) if not _is_probabilities(value))
    return list(dict.fromkeys(str(value.name) for value in found))


def find_products(model: ir.Model, patterns: str | None) -> list[str]:
    """Return the names of the products that patterns such as `*.ffn.lin2` match, comma-separated.

    Raises:
        UsageError: a pattern matches none.
    """
    names = [str(node.name) for node in graph.nodes(model, "MatMul")]
    found: list[str] = []
    for pattern in map(str.strip, patterns.split(",") if patterns else ()):
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise UsageError(f"--keep {pattern}: no product is called that. The first is {names[0]}; see `explain`.")
        found += matched
    return list(dict.fromkeys(found))


def quantize(model: ir.Model, ranges: Ranges, scheme: QdqScheme, *, keep: Collection[str] = ()) -> dict[str, Any]:
    """Put Q/DQ nodes for `target` around the products of a float graph, but those named in `keep`.

    Returns:
        A JSON record: how many linear layers and attention products are quantised, and what was kept.

    Raises:
        InputError: a tensor of the graph has no range.
    """
    products = [node for node in graph.nodes(model, "MatMul") if node.name not in keep]
    linear = [node for node in products if constant(node.inputs[1]) is not None]
    for value, position, readers in _activations(products):
        unsigned = scheme.unsigned_left and position == 0
        replacement = _quantized(model, value, _range_of(value, ranges), unsigned=unsigned)
        for node in readers:
            node.replace_input_with(position, replacement)
    for node in linear:
        node.replace_input_with(1, _quantized_weight(model, node))
    graph.tidy(model)
    counts = {"linear": len(linear), "attention": len(products) - len(linear)}
    return {"target": scheme.name, **counts, "kept": sorted(keep)}


def add_int8_copies(model: ir.Model, ranges: Ranges) -> dict[str, str]:
    """Add beside each product a copy that reads the same float inputs in INT8; return product -> copy's output.

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
    known = PROBABILITIES if _is_probabilities(value) else ranges.get(str(value.name))
    if known is None:
        raise InputError(f"calibration: no range for {value.name}. Calibrate this graph again.")
    return known


def _activations(products: list[ir.Node]) -> list[tuple[ir.Value, int, list[ir.Node]]]:
    """Return each activation that a product reads, the input position, and the products there."""
    found: dict[tuple[ir.Value, int], list[ir.Node]] = {}
    for node in products:
        for position, value in enumerate(node.inputs):
            if value is not None and constant(value) is None:
                found.setdefault((value, position), []).append(node)
    return [(value, position, readers) for (value, position), readers in found.items()]


def _is_probabilities(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Softmax"


def _quantized(model: ir.Model, value: ir.Value, known: Range, *, unsigned: bool) -> ir.Value:
    """Return `value` after a Q/DQ pair: int8 symmetric, or uint8 with a zero point of its own."""
    if unsigned:
        # Zero must be exact: padding, ReLU and masked probabilities are full of it.
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
    """Return int8 symmetric weights [in, out] and a float32 scale for each output channel [out]."""
    scale = (np.abs(weight).max(axis=0) / INT8_LEVELS).astype(np.float32)
    scale[scale == 0] = 1  # a channel of zeros, or of numbers so small that float32 loses them
    return np.clip(np.rint(weight / scale), -INT8_LEVELS, INT8_LEVELS).astype(np.int8), scale


def _quantized_weight(model: ir.Model, node: ir.Node) -> ir.Value:
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
