"""Conversion of a float32 graph to a strongly typed float16 graph, with float32 where range or precision needs it.

Softmax stays in float32, and so does the addition of the mask before it, because the mask is a large negative number.
LayerNorm reads and returns float16 but computes its statistics in float32 (its attribute `stash_type` is 1). A Q node
and a residual addition then read the same float16 tensor, so a GPU writes it only once. Every GEMM is in float16, also
in the classification head, because NVIDIA's TensorRT-RTX has no float32 GEMM for Turing. Inputs and logits keep their
types: a Cast makes the logits float32. A Q node accepts float16 and float32. A DQ node returns float16, the type of its
scale.
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolchain.base.tensors import Array
from toolchain.graph import add_initializer, constant, nodes, tidy

HALF = ir.DataType.FLOAT16
FLOAT = ir.DataType.FLOAT

# The largest float16 number, 65,504.
MAX = float(np.finfo(np.float16).max)

# Types of nodes that always stay in float32.
FULL_PRECISION = {"Softmax"}

# Operators whose outputs contain only values of their inputs, which have already been rounded to float16.
MOVES = {
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Where",
}

# Operators that read float16 and float32 alike, so their inputs are never cast.
READS_ANY = {"QuantizeLinear", "Shape"}

# The first opset in which QuantizeLinear and DequantizeLinear accept float16 and FP8. The other operators of these
# graphs work as in opset 18.
QDQ_OPSET = 19


def to_half(model: ir.Model, beyond: Collection[str] = (), half_outputs: Collection[str] = ()) -> int:
    """Convert a float32 graph to float16 in place; return the number of nodes that compute in float16.

    The scales of Q/DQ nodes are rounded to float16 first (round_scales).

    Args:
        model: the graph.
        beyond: names of tensors with values outside float16's range (runtimes/half_range.py measures them). Nodes that
            compute or read them stay in float32. So do nodes that read a constant outside the range.
        half_outputs: names of graph outputs that stay in float16. All others are cast to float32.
    """
    quantized = round_scales(model)
    kept = _kept_nodes(model) | reading_or_making(model, {*beyond, *large_constants(model)})
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    count = 0
    for node in list(model.graph):
        wanted = FLOAT if node in kept else HALF
        if node.op_type in READS_ANY and node.inputs[0] is not None and node.inputs[0].dtype is not None:
            wanted = node.inputs[0].dtype
        if not any(_is_float(value) for value in _values(node)):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and _is_float(value) and value.dtype != wanted:
                node.replace_input_with(index, _typed(model, value, wanted, casts))
        if wanted is HALF:
            count += 1
            for value in node.outputs:
                if _is_float(value):
                    value.type = ir.TensorType(HALF)  # a new object, because values may share the old one
    _cast_outputs(model, half_outputs)
    if quantized:
        model.graph.opset_imports[""] = max(QDQ_OPSET, model.graph.opset_imports[""])
    tidy(model)
    return count


def round_scales(model: ir.Model) -> int:
    """Round the scales of Q and DQ nodes to numbers of float16, in place; return the number of scales.

    A Q node in float32 and its DQ node in float16 then use exactly the same scale.
    """
    readers = list(nodes(model, "QuantizeLinear", "DequantizeLinear"))
    scales = {value for node in readers if (value := node.inputs[1]) is not None}
    for value in scales:
        array = constant(value)
        assert array is not None  # scales are always constants
        value.const_value = ir.tensor(rounded_scale(array), name=value.name)
    return len(scales)


def rounded_scale(scale: Array) -> NDArray[np.float32]:
    """Return scales rounded to the nearest positive number of float16, as float32 of the same shape.

    Rounding changes a scale by at most 1/2048 of its value, or by more if it is below float16's normal numbers
    (6.1e-5).
    """
    # Round to float32 first, because the graph stores scales as float32. Rounding float64 directly to float16 could
    # give another result than rounding the stored scale.
    rounded = scale.astype(np.float32).astype(np.float16)
    return np.maximum(rounded, np.finfo(np.float16).smallest_subnormal).astype(np.float32)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in (FLOAT, HALF)


def _kept_nodes(model: ir.Model) -> set[ir.Node]:
    """Return the nodes that stay in float32: softmax, the addition before it, and nodes that compute the mask."""
    kept = {node for node in model.graph if node.op_type in FULL_PRECISION}
    kept |= {entry for node in nodes(model, "Softmax") if (entry := _producer(node)) is not None}
    roots = {node for node in nodes(model, "Gather") if _is_float(node.inputs[0])}
    # A language model also has float inputs: the keys and values of earlier tokens.
    read = [use.node for value in model.graph.inputs if _is_float(value) for use in value.uses()]
    roots |= {node for node in read if node.op_type != "Shape"}
    # Nodes that depend neither on an embedding nor on such an input compute the mask or dequantize a weight.
    weights = set(nodes(model, "DequantizeLinear"))
    return kept | (set(model.graph) - _downstream(model, roots) - weights)


def reading_or_making(model: ir.Model, tensors: Collection[str]) -> set[ir.Node]:
    """Return the nodes that compute or read one of these tensors, also through nodes that only move values (MOVES).

    After `to_half`, a node that reads the float32 copy of such a tensor counts too.
    """
    held = {*tensors, *(f"{name}.fp32" for name in tensors)}
    for node in model.graph:  # in topological order
        if node.op_type in MOVES and any(value and value.name in held for value in node.inputs):
            held |= {str(value.name) for value in node.outputs}
    return {node for node in model.graph if any(value and value.name in held for value in _values(node))}


def _values(node: ir.Node) -> tuple[ir.Value | None, ...]:
    return (*node.inputs, *node.outputs)


def large_constants(model: ir.Model) -> set[str]:
    """Return the names of the constants with a value outside float16's range."""
    arrays = {name: constant(value) for name, value in model.graph.initializers.items() if _is_float(value)}
    floats = {name: array for name, array in arrays.items() if array is not None}
    # np.abs would copy every table of a large model.
    return {name for name, array in floats.items() if max(-array.min(initial=0), array.max(initial=0)) > MAX}


def _producer(node: ir.Node) -> ir.Node | None:
    """Return the Add node that computes the first input of `node`, or None if another node computes it."""
    value = node.inputs[0]
    producer = value.producer() if value else None
    return producer if producer is not None and producer.op_type == "Add" else None


def _downstream(model: ir.Model, roots: set[ir.Node]) -> set[ir.Node]:
    """Return `roots` and every node that depends on one of them."""
    found = set(roots)
    for node in model.graph:
        if any(value is not None and value.producer() in found for value in node.inputs):
            found.add(node)
    return found


def _cast_outputs(model: ir.Model, half: Collection[str]) -> None:
    """Cast the graph's float16 outputs to float32, except those named in `half`. Outputs keep their names."""
    for index, value in enumerate(model.graph.outputs):
        if value.dtype is HALF and value.name not in half:
            name, value.name = value.name, f"{value.name}.fp16"
            cast = _typed(model, value, FLOAT, {})
            cast.name = name
            model.graph.outputs[index] = cast


def _typed(
    model: ir.Model,
    value: ir.Value,
    wanted: ir.DataType,
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value],
) -> ir.Value:
    """Return `value` in the type `wanted`: a converted constant, or the output of a Cast that serves all its readers.

    `casts` maps values to the results of earlier conversions; a new result is added to it.
    """
    if (value, wanted) in casts:
        return casts[value, wanted]
    array = constant(value)
    suffix = "fp16" if wanted is HALF else "fp32"
    if array is not None:
        typed = add_initializer(model, f"{value.name}.{suffix}", array.astype(wanted.numpy()))
    else:
        cast = _converter(model, value, wanted, casts, f"{value.name}.to_{suffix}")
        typed = cast.outputs[0]
        typed.name, typed.dtype, typed.shape = f"{value.name}.{suffix}", wanted, value.shape
        producer = value.producer()
        assert producer is not None  # no graph input is cast: inputs are integers, or float16 in a language model
        model.graph.insert_after(producer, cast)
    casts[value, wanted] = typed
    return typed


def _converter(
    model: ir.Model,
    value: ir.Value,
    wanted: ir.DataType,
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value],
    name: str,
) -> ir.Node:
    """Return a new node that computes `value` in the type `wanted`.

    The node is a Cast. If a DQ node computes `value`, the new node is a second DQ node with a scale of the type
    `wanted`, because a GEMM that reads a Cast of a DQ node would not be in INT8.
    """
    producer = value.producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[1] is None:
        return ir.node("Cast", [value], {"to": int(wanted)}, name=name)
    scale = _typed(model, producer.inputs[1], wanted, casts)
    inputs = [producer.inputs[0], scale, *producer.inputs[2:]]
    return ir.Node("", "DequantizeLinear", inputs, producer.attributes.values(), name=name)
