"""Cleaning passes over an exported graph. They leave the logits unchanged.

A clean graph has fewer nodes, names from the PyTorch modules, and none of the exporter's metadata.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from toolchain.graph import add_initializer, constant, nodes, tidy
from toolchain.graph.gemms import linear_layers

# Added to the attention scores of masked positions. It is finite in float16, and exp(-1e4) is 0 in every float type.
MASK_VALUE = -1e4

# Constants below this value mean minus infinity: transformers writes -inf or -3.4e38.
LOWEST_FINITE = -3e4


def finite_masks(model: ir.Model) -> int:
    """Replace scalar constants that mean minus infinity with MASK_VALUE, which is finite in float16.

    In float16 the exporter's constants would be -inf, and the softmax of a row without any real token would be NaN.
    """
    count = 0
    for value in list(model.graph.initializers.values()):
        array = constant(value)
        if array is None or array.dtype != np.float32 or array.size != 1 or not array.item() < LOWEST_FINITE:
            continue
        value.const_value = ir.tensor(np.full(array.shape, MASK_VALUE, np.float32), name=value.name)
        count += 1
    return count


def plain_reshapes(model: ir.Model) -> int:
    """Replace the computed shapes of Reshape nodes with constants, in which 0 copies a dimension of the input.

    The exporter computes these shapes with Shape and Concat nodes. With a constant shape, a compiler sees that a
    Reshape splits or joins attention heads.
    """
    count = 0
    for node in nodes(model, "Reshape"):
        before = node.inputs[0].shape if node.inputs[0] else None
        after = node.outputs[0].shape
        if before is None or after is None or constant(node.inputs[1]) is not None:
            continue
        target = [0 if index < len(before) and before[index] == size else size for index, size in enumerate(after)]
        if all(isinstance(size, int) for size in target):
            name = "shape_" + "_".join(map(str, target))
            node.replace_input_with(1, add_initializer(model, name, np.array(target, np.int64)))
            node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
            count += 1
    return count


def fold_attention_scale(model: ir.Model) -> int:
    """Multiply 1/sqrt(head size) into the query's weight and bias.

    This saves a Mul over the scores, [batch, heads, sequence, sequence]. TensorRT fuses attention only if the scale
    is applied before the first GEMM.
    """
    count = 0
    for scale in nodes(model, "Mul", "Div"):
        factor, product = _constant_and_producer(scale)
        if factor is None or product is None or product.op_type != "MatMul":
            continue
        query = _linear_behind(product.inputs[0])
        array = constant(factor)
        if query is None or array is None or array.size != 1 or constant(product.inputs[1]) is not None:
            continue
        ratio = array.item() if scale.op_type == "Mul" else 1 / array.item()
        for node in query:
            _scale_constant(model, node, ratio)
        scale.outputs[0].replace_all_uses_with(product.outputs[0])
        count += 1
    return count


def _constant_and_producer(node: ir.Node) -> tuple[ir.Value | None, ir.Node | None]:
    """Return the constant input of a node, and the node that computes its other input; None for a missing one."""
    fixed = next((value for value in node.inputs if constant(value) is not None), None)
    other = next((value.producer() for value in node.inputs if value is not None and value is not fixed), None)
    return fixed, other


def _linear_behind(value: ir.Value | None) -> tuple[ir.Node, ir.Node] | None:
    """Return the MatMul and the Add of the linear layer that computes `value`, possibly through Reshape and Transpose.

    Return None if there is no such layer, or if another node reads one of the tensors in between.
    """
    node = value.producer() if value else None
    while node is not None and node.op_type in ("Transpose", "Reshape"):
        source = node.inputs[0]
        if source is None or len(node.outputs[0].uses()) != 1:
            return None
        node = source.producer()
    if node is None or node.op_type != "Add" or len(node.outputs[0].uses()) != 1:
        return None
    bias, product = _constant_and_producer(node)
    if bias is None or product is None or product.op_type != "MatMul" or constant(product.inputs[1]) is None:
        return None
    return (product, node) if len(product.outputs[0].uses()) == 1 else None


def _scale_constant(model: ir.Model, node: ir.Node, ratio: float) -> None:
    """Multiply the constant input of `node` by `ratio`; other nodes that read it keep the old constant."""
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if value is not None and array is not None:
            scaled = add_initializer(model, f"{value.name}.scaled", (array * ratio).astype(array.dtype))
            node.replace_input_with(index, scaled)


def plain_gelu(model: ir.Model) -> int:
    """Rewrite x * (0.5 * (1 + erf)) as (x * (1 + erf)) * 0.5, the order that compilers recognise as GELU."""
    count = 0
    for erf in nodes(model, "Erf"):
        plus_one = _sole_reader(erf, "Add")
        half = _sole_reader(plus_one, "Mul")
        gelu = _sole_reader(half, "Mul")
        if plus_one is None or half is None or gelu is None:
            continue
        factor = next((value for value in half.inputs if constant(value) is not None), None)
        x = next((value for value in gelu.inputs if value is not half.outputs[0]), None)
        if factor is None or x is None:
            continue
        product = ir.node("Mul", [x, plus_one.outputs[0]])
        product.outputs[0].shape, product.outputs[0].type = x.shape, ir.TensorType(ir.DataType.FLOAT)
        model.graph.insert_before(gelu, product)
        gelu.replace_input_with(0, product.outputs[0])
        gelu.replace_input_with(1, factor)
        count += 1
    return count


def _sole_reader(node: ir.Node | None, op_type: str) -> ir.Node | None:
    """Return the node that reads the output of `node`, if it is the only one and has the type `op_type`, else None."""
    uses = node.outputs[0].uses() if node else ()
    reader = next(iter(uses)).node if len(uses) == 1 else None
    return reader if reader is not None and reader.op_type == op_type else None


def float_sums(model: ir.Model) -> int:
    """Compute each integer CumSum in float32, because TensorRT's parser rejects CumSum of integers.

    CumSum computes RoBERTa's positions, which float32 represents exactly.
    """
    count = 0
    for node in nodes(model, "CumSum"):
        source, result = node.inputs[0], node.outputs[0]
        if source is None or source.dtype is None or not source.dtype.is_integer():
            continue
        before, after = (
            ir.node("Cast", [value], {"to": int(kind)}, name=f"{node.name}.{name}")
            for value, kind, name in ((source, ir.DataType.FLOAT, "float"), (result, source.dtype, "integer"))
        )
        before.outputs[0].shape, before.outputs[0].type = source.shape, ir.TensorType(ir.DataType.FLOAT)
        after.outputs[0].shape, after.outputs[0].type = result.shape, ir.TensorType(source.dtype)
        result.replace_all_uses_with(after.outputs[0])
        after.replace_input_with(0, result)
        result.dtype = ir.DataType.FLOAT
        node.replace_input_with(0, before.outputs[0])
        model.graph.insert_before(node, before)
        model.graph.insert_after(node, after)
        count += 1
    return count


def name_by_module(model: ir.Model) -> int:
    """Name GEMMs, LayerNorms and softmaxes after the PyTorch modules that they come from.

    A node is then called `transformer.layer.0.ffn.lin1` instead of `node_MatMul_115`. These names appear in
    calibration.json and in all reports.
    """
    taken: set[str] = set()
    linear = set(linear_layers(model))
    for node in nodes(model, "MatMul", "LayerNormalization", "Softmax", "Gemm"):
        scopes = [part for part in _scopes(node) if part]
        stem = scopes[-1].removeprefix("model.") if scopes else node.op_type
        if node.op_type in ("MatMul", "Softmax") and node not in linear:
            stem += ".softmax" if node.op_type == "Softmax" else ".product"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}{number}"
        taken.add(name)
        node.name = name
    return len(taken)


def _scopes(node: ir.Node) -> list[str]:
    """Return the names of the PyTorch modules that a node is inside, outermost first, from the exporter's metadata."""
    import ast

    text = node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]")
    return list(ast.literal_eval(text))[:-1]


def name_tensors(model: ir.Model) -> int:
    """Name tensors after their nodes: NODE.output, and for a linear layer also NODE.input and NODE.weight.

    The inputs of an attention GEMM are called NODE.left and NODE.right.
    """
    kept = {*model.graph.inputs, *model.graph.outputs}
    named: set[ir.Value] = set(kept)
    for node in nodes(model, "MatMul", "LayerNormalization", "Softmax", "Gemm"):
        _name(node.outputs[0], f"{node.name}.output", named)
    for node in nodes(model, "MatMul"):
        left, right = node.inputs
        assert left is not None
        assert right is not None
        linear = constant(right) is not None
        _name(left, f"{node.name}.{'input' if linear else 'left'}", named)
        if linear:
            _rename(model, right, f"{node.name}.weight")
        else:
            _name(right, f"{node.name}.right", named)
    for value in list(model.graph.initializers.values()):
        _rename(model, value, str(value.name).removeprefix("model."))
    return len(named) - len(kept)


def _name(value: ir.Value, name: str, named: set[ir.Value]) -> None:
    if value not in named:
        value.name = name
        named.add(value)


def _rename(model: ir.Model, value: ir.Value, name: str) -> None:
    """Rename an initializer to `name`. Do nothing if the graph already has an initializer of that name."""
    if name in model.graph.initializers:
        return
    model.graph.initializers.pop(str(value.name))
    value.name = name
    if value.const_value is not None:
        value.const_value.name = name
    model.graph.initializers[name] = value


# Name -> pass, in the order in which `clean` runs them.
PASSES: dict[str, Callable[[ir.Model], int]] = {
    "finite_masks": finite_masks,
    "plain_reshapes": plain_reshapes,
    "fold_attention_scale": fold_attention_scale,
    "plain_gelu": plain_gelu,
    "float_sums": float_sums,
    "name_by_module": name_by_module,
    "name_tensors": name_tensors,
    "tidy": tidy,
}


def clean(model: ir.Model) -> dict[str, int]:
    """Run every pass in place; return pass name -> number of changes."""
    return {name: run(model) for name, run in PASSES.items()}
