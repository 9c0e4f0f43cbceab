"""Converts a language model's graph for TensorRT-RTX: to float16, with weights in float16, INT8 or INT4.

Only ONNX Runtime knows the operator MatMulNBits. In the converted graph, a DequantizeLinear computes the weight of a
GEMM instead: from INT8 with one scale per output channel, or from INT4 with one scale per block. There are no zero
points, because TensorRT does not support them. So the weights differ from those of model.int8.onnx and model.int4.onnx,
and their accuracy was not measured.
"""

import numpy as np
import onnx_ir as ir

from toolchain.base.tensors import Array
from toolchain.generate.decode_ort import PRESENT
from toolchain.generate.weight_only import BLOCK, constant_weight
from toolchain.graph import add_initializer, nodes, tidy
from toolchain.graph.fp16 import HALF, to_half
from toolchain.int8.quantize import quantize_weight

# The first opset whose DequantizeLinear supports 4-bit weights and blocks.
BLOCKS_OPSET = 21

# Largest INT4 level. INT4 has the levels -8 to 7; -8 is not used, so that x and -x are quantized alike.
INT4_LEVELS = 7


def to_typed(model: ir.Model, bits: int | None) -> int:
    """Convert a graph for TensorRT-RTX in place; return the number of GEMMs whose weights were quantized.

    `bits` is 8 or 4; None leaves all weights in float16. With 4, a GEMM keeps its weights in float16 if its inner
    dimension is not a multiple of BLOCK.
    """
    count = 0
    for node in nodes(model, "MatMul", "Gemm") if bits else ():
        weight = constant_weight(node)
        if weight is not None and weight.array is not None and (bits == 8 or weight.array.shape[0] % BLOCK == 0):
            _dequantize(model, node, weight.array, bits or 8)
            count += 1
    if count and bits == 4:
        model.graph.opset_imports[""] = max(BLOCKS_OPSET, model.graph.opset_imports[""])
    tidy(model)
    for value in model.graph.inputs:
        if value.dtype is ir.DataType.FLOAT:
            value.type = ir.TensorType(HALF)
    to_half(
        model, half_outputs=[str(value.name) for value in model.graph.outputs if str(value.name).startswith(PRESENT)]
    )
    return count


def _dequantize(model: ir.Model, node: ir.Node, array: Array, bits: int) -> None:
    """Replace a node with a MatMul that reads a dequantized weight, and an Add if the node is a Gemm with a bias."""
    stem, attributes = f"{node.name}.int{bits}", {"axis": 1}
    numbers, scale = quantize_weight(array) if bits == 8 else quantize_blocks(array)
    if bits == 4:
        attributes = {"axis": 0, "block_size": BLOCK}
        packed = ir.Tensor(numbers.astype(ir.DataType.INT4.numpy()), dtype=ir.DataType.INT4, name=stem)
        weight = ir.Value(name=stem, const_value=packed, type=ir.TensorType(packed.dtype), shape=packed.shape)
        model.graph.register_initializer(weight)
    else:
        weight = add_initializer(model, stem, numbers)
    inputs = [weight, add_initializer(model, f"{stem}.scale", scale)]
    dequantize = ir.node("DequantizeLinear", inputs, attributes, name=f"{stem}.dequantize")
    given = dequantize.outputs[0]
    given.name, given.shape, given.type = f"{stem}.dequantized", ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
    made = [ir.node("MatMul", [node.inputs[0], given], name=str(node.name))]
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if bias is not None:
        made.append(ir.node("Add", [made[0].outputs[0], bias], name=f"{node.name}.bias"))
    for one in made:
        one.outputs[0].type, one.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    replaced = [dequantize, *made]
    ir.convenience.replace_nodes_and_values(model.graph, node, [node], replaced, node.outputs, made[-1].outputs)


def quantize_blocks(weight: Array) -> tuple[Array, Array]:
    """Quantize a weight to INT4 in blocks. Return levels, int8 [inner, outer], and scales, float32 [blocks, outer]."""
    inner, outer = weight.shape
    blocks = weight.reshape(inner // BLOCK, BLOCK, outer)
    scale = (np.abs(blocks).max(axis=1) / INT4_LEVELS).astype(np.float32)
    scale[scale == 0] = 1
    numbers = np.clip(np.rint(blocks / scale[:, None]), -INT4_LEVELS, INT4_LEVELS)
    return numbers.reshape(inner, outer).astype(np.int8), scale
