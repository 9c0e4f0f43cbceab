"""Emulation of float16 arithmetic on a CPU.

ONNX Runtime's CPU provider lacks kernels for float16. It computes such nodes in float32 and removes the casts between
them, so a value of 1e5 stays 1e5 where a GPU computes infinity. `in_halves` makes the graph float32 and writes the
rounding into it: after each node that computes a float16 tensor come a Cast to float16 and a Cast back to float32. No
optimisation removes the pair, because it changes values.

A node itself computes in float32 and rounds once, like a GPU's GEMM with float32 accumulators. An INT8 GEMM multiplies
integers and never dequantizes its operands to float16, so the outputs of its DQ nodes are not rounded. Values of
65,520 and more become infinity, values below 6.1e-5 lose bits, and values below 3e-8 become 0, as on a GPU, which
keeps float16's subnormal numbers. The result of a GPU can still differ: a kernel that computes several nodes may round
less often, and a kernel with float16 accumulators rounds more often.
"""

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes import common

from toolchain import graph
from toolchain.base.tensors import Array
from toolchain.graph.fp16 import FLOAT, HALF, MOVES

# Suffix of the name of the second of the two Casts that round a tensor to float16: the Cast back to float32.
FROM_HALF = ".from_float16"

# Names of attributes that state the type of an output.
TYPES = ("to", "dtype", "output_dtype")


def has_halves(model: ir.Model) -> bool:
    """Return whether a graph has float16 tensors."""
    values = [*model.graph.initializers.values(), *(value for node in model.graph for value in node.outputs)]
    return any(value.dtype is HALF for value in values)


def in_halves(model: ir.Model) -> int:
    """Compute every float16 tensor in float32 and round it to float16, in place; return the number of rounded tensors.

    A rounded tensor keeps its name. Dequantized operands of INT8 GEMMs are not rounded. All nodes then compute in
    float32, for which a CPU has fast kernels.
    """
    computed = to_float(model)
    integer = {node for node in model.graph if multiplies_integers(node)}
    rounded = [
        value for value in computed if value.is_graph_output() or any(use.node not in integer for use in value.uses())
    ]
    for value in rounded:
        _round(model, value, unless=integer)
    return len(rounded)


def to_float(model: ir.Model) -> list[ir.Value]:
    """Change the type of every float16 tensor to float32, in place; return the changed tensors that a node computes.

    Constants, and outputs of nodes that only move values (fp16.MOVES), are not returned. The graph then computes in
    float32 without any rounding to float16.
    """
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        common.ShapeInferencePass()(model)  # infers missing types as well as shapes
    for value in model.graph.initializers.values():
        if value.dtype is HALF and value.const_value is not None:
            value.const_value = _in_float32(value.const_value)
            value.type = ir.TensorType(FLOAT)  # a new object, because a clone of the graph shares the old one
    computed = []
    for node in model.graph:
        _retype_attributes(node)
        for value in node.outputs:
            if value.dtype is HALF:
                value.type = ir.TensorType(FLOAT)
                computed += [value] if node.op_type not in MOVES else []
    return computed


def report_largest(model: ir.Model) -> dict[str, str]:
    """Replace the outputs of a graph with the largest magnitude of each float32 tensor that a node computes, in place.

    Returns:
        Name of each new output, a float32 scalar -> name of the tensor that it measures.
    """
    computed = {node.outputs[0]: node for node in model.graph if node.op_type not in MOVES}
    found = {}
    outputs = []
    for value, node in computed.items():
        if value.dtype is FLOAT and node.op_type != "Constant":
            outputs.append(_largest(model, value, str(value.name)))
            found[str(outputs[-1].name)] = str(value.name)
    model.graph.outputs[:] = outputs
    return found


def report_rounding(model: ir.Model) -> dict[str, tuple[str, str]]:
    """Replace the outputs of a graph after `in_halves` with the error of each rounding, in place.

    Returns:
        Name of each rounded tensor, in graph order -> names of two new outputs, float32 scalars: the L2 norm of the
        tensor before the rounding, and the L2 norm of the change by the rounding.
    """
    found, outputs = {}, []
    for node in list(model.graph):
        if str(node.name).endswith(FROM_HALF):
            name, exact = str(node.outputs[0].name), node.inputs[0].producer().inputs[0]  # type: ignore[union-attr]
            change = ir.node("Sub", [exact, node.outputs[0]], name=f"{name}.change")
            both = [ir.node("ReduceL2", [one], {"keepdims": 0}) for one in (exact, change.outputs[0])]
            change.outputs[0].name = f"{name}.change"
            for reduced, ending in zip(both, (".size", ".changed"), strict=True):
                value, reduced.name = reduced.outputs[0], f"{name}{ending}"
                value.name, value.type, value.shape = f"{name}{ending}", ir.TensorType(FLOAT), ir.Shape([])
                outputs.append(value)
            model.graph.insert_after(node, [change, *both])
            found[name] = (f"{name}.size", f"{name}.changed")
    model.graph.outputs[:] = outputs
    return found


def report_sums(model: ir.Model) -> dict[str, str]:
    """Add to a graph's outputs the largest integer sum of each INT8 GEMM that has a scale per channel, in place.

    The integer sum is a value of the GEMM's output divided by the scales of both operands; the largest is by
    magnitude. A kernel that stores the sums as float16 before it scales them overflows if a sum exceeds 65,504.

    Returns:
        Name of each new output, a float32 scalar -> name of the GEMM's node.
    """
    found = {}
    for node in list(graph.nodes(model, "MatMul")):
        scales = [_scale(value) for value in node.inputs]
        if scales[0] is None or scales[1] is None or max(scales[0].size, scales[1].size) == 1:
            continue
        factor = graph.add_initializer(model, f"{node.name}.scales", (scales[0] * scales[1]).astype("float32"))
        division = ir.node("Div", [node.outputs[0], factor], name=f"{node.name}.sums")
        division.outputs[0].name, division.outputs[0].dtype = f"{node.name}.sums", FLOAT
        model.graph.insert_after(node, division)
        output = _largest(model, division.outputs[0], f"{node.name}.sums")
        model.graph.outputs.append(output)
        found[str(output.name)] = str(node.name)
    return found


def _largest(model: ir.Model, value: ir.Value, stem: str) -> ir.Value:
    """Add nodes that compute the largest magnitude of a value; return their output, a float32 scalar."""
    magnitude = ir.node("Abs", [value], name=f"{stem}.abs")
    largest = ir.node("ReduceMax", [magnitude.outputs[0]], {"keepdims": 0}, name=f"{stem}.largest")
    magnitude.outputs[0].name, magnitude.outputs[0].dtype = f"{stem}.abs", FLOAT
    output = largest.outputs[0]
    output.name, output.type, output.shape = f"{stem}.largest", ir.TensorType(FLOAT), ir.Shape([])
    node = value.producer()
    assert node is not None  # only values that a node computes are measured
    model.graph.insert_after(node, [magnitude, largest])
    return output


def _scale(value: ir.Value | None) -> Array | None:
    """Return the scales of the DQ node that computes a value; None if another node computes it."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return graph.constant(node.inputs[1])


def _in_float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype("float32"), name=tensor.name)


def _retype_attributes(node: ir.Node) -> None:
    """Replace float16 with float32 in the attributes of a node."""
    for name, attribute in list(node.attributes.items()):
        if name in TYPES and attribute.value == HALF:
            node.attributes[name] = ir.AttrInt64(name, int(FLOAT))
        elif attribute.type is ir.AttributeType.TENSOR and attribute.value.dtype is HALF:
            node.attributes[name] = ir.AttrTensor(name, _in_float32(attribute.value))


def multiplies_integers(node: ir.Node) -> bool:
    """Return whether a node is a MatMul of two dequantized operands, so that it runs in INT8."""
    producers = [value.producer() for value in node.inputs if value is not None]
    return node.op_type == "MatMul" and all(one is not None and one.op_type == "DequantizeLinear" for one in producers)


def _round(model: ir.Model, value: ir.Value, *, unless: Collection[ir.Node]) -> None:
    """Round a value to float16 for all nodes that read it except `unless`. The result gets the value's name."""
    exact = [use for use in value.uses() if use.node in unless]
    down = ir.node("Cast", [value], {"to": int(HALF)}, name=f"{value.name}.to_float16")
    up = ir.node("Cast", [down.outputs[0]], {"to": int(FLOAT)}, name=f"{value.name}{FROM_HALF}")
    half, rounded = down.outputs[0], up.outputs[0]
    value.replace_all_uses_with(rounded, replace_graph_outputs=True)
    down.replace_input_with(0, value)
    for use in exact:
        use.node.replace_input_with(use.idx, value)
    half.name, half.dtype, half.shape = f"{value.name}.float16", HALF, value.shape
    rounded.dtype, rounded.shape = FLOAT, value.shape
    rounded.name, value.name = value.name, f"{value.name}.unrounded"
    node = value.producer()
    assert node is not None  # only values that a node computes are rounded
    model.graph.insert_after(node, [down, up])
