"""A pass that rewrites a float32 graph, plain or with Q/DQ nodes, for TensorRT 8.6.

TensorRT 8.6 takes opsets up to 17 and float32 scales. It chooses the types itself: FP16 and INT8 are flags of its
builder. The pass writes LayerNorm as single operators, so that the builder can be told to keep some of them in float32,
because the squares and their mean exceed float16's range.
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from toolchain.graph import add_initializer, nodes, tidy
from toolchain.graph.fp16 import reading_or_making
from toolchain.graph.halves import multiplies_integers
from toolchain.graph.match import axis
from toolchain.graph.trt_fusable import QDQ

OPSET, IR_VERSION = 17, 8

# Suffixes of the names of a LayerNorm's operators, except those for gamma and beta. These operators stay in float32,
# because squares and their sums exceed float16's range.
NORM_STEPS = (".mean", ".centred", ".square", ".variance", ".stable", ".deviation", ".normalised")


def float_nodes(model: ir.Model, beyond: Collection[str]) -> dict[str, bool]:
    """Return node name -> whether TensorRT 8 must also compute in float32, for each node whose output must be float32.

    These are the operators of LayerNorms, and the nodes that compute or read a tensor in `beyond`, the names of tensors
    with values outside float16's range. The value is False for a GEMM of INT8 operands, which computes in INT8.
    """
    kept = reading_or_making(model, beyond) | {node for node in model.graph if str(node.name).endswith(NORM_STEPS)}
    return {
        str(node.name): not multiplies_integers(node)
        for node in kept
        if node.op_type not in QDQ and node.outputs[0].dtype is ir.DataType.FLOAT
    }


def for_trt8(model: ir.Model) -> dict[str, int]:
    """Rewrite a float32 graph in place; return {"norms_in_steps": number of LayerNorms written as single operators}."""
    count = 0
    for norm in list(nodes(model, "LayerNormalization")):
        _write_out(model, norm)
        count += 1
    model.graph.opset_imports[""] = OPSET
    model.ir_version = IR_VERSION
    tidy(model)
    return {"norms_in_steps": count}


def _write_out(model: ir.Model, norm: ir.Node) -> None:
    """Replace a LayerNorm by the single operators of its formula (ONNX, LayerNormalization-17)."""
    x, gamma, beta = (*norm.inputs, None)[:3]
    assert x is not None
    assert gamma is not None
    over = axis(norm, -1)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    least = add_initializer(model, f"{norm.name}.epsilon", np.array(epsilon, np.float32))
    mean = _step(model, norm, "ReduceMean", [x], ".mean", over=over)
    centred = _step(model, norm, "Sub", [x, mean], ".centred")
    # The square is a Pow, which no other part of an encoder has, so a builder can recognise the LayerNorm by it.
    square = _step(model, norm, "Pow", [centred, add_initializer(model, "two", np.array(2, np.float32))], ".square")
    variance = _step(model, norm, "ReduceMean", [square], ".variance", over=over)
    stable = _step(model, norm, "Add", [variance, least], ".stable")
    deviation = _step(model, norm, "Sqrt", [stable], ".deviation")
    normalised = _step(model, norm, "Div", [centred, deviation], ".normalised")
    made = _step(model, norm, "Mul", [normalised, gamma], ".scaled")
    if beta is not None:
        made = _step(model, norm, "Add", [made, beta], ".shifted")
    name, norm.outputs[0].name = norm.outputs[0].name, f"{norm.outputs[0].name}.replaced"
    norm.outputs[0].replace_all_uses_with(made)
    made.name = name


def _step(
    model: ir.Model, norm: ir.Node, op_type: str, inputs: list[ir.Value], ending: str, *, over: int | None = None
) -> ir.Value:
    """Insert one operator of a LayerNorm's formula before the LayerNorm; return its output.

    The operator's name is the LayerNorm's name with `ending` appended. `over` is the axis of a mean, None for
    other operators.
    """
    reduced = over is not None or ending in (".stable", ".deviation")
    # In this opset, ReduceMean takes the axes as an attribute; from opset 18 on, they are an input.
    attributes: dict[str, int | list[int]] = {} if over is None else {"axes": [over], "keepdims": 1}
    node = ir.node(op_type, inputs, attributes, name=f"{norm.name}{ending}")
    made, shape = node.outputs[0], norm.outputs[0].shape
    made.name, made.type = f"{norm.name}{ending}", ir.TensorType(ir.DataType.FLOAT)
    made.shape = shape if shape is None or not reduced else ir.Shape([*shape[:-1], 1])
    model.graph.insert_before(norm, node)
    return made
