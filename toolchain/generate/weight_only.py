"""Weight-only quantization of a language model's graph: INT8 or INT4 weights in blocks, by ONNX Runtime's MatMulNBits.

A decode step reads each weight once and does little arithmetic with it, so fewer bytes mean less time. Activations
stay in floating point between the operators, so the logits of a token do not depend on the other tokens of its batch.
"""

import logging
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain.base.tensors import Array
from toolchain.errors import GateError
from toolchain.graph import add_initializer, constant, nodes, tidy
from toolchain.records.language_model import WeightOnlyGemm, WeightsRecord

# Precision -> bits per weight.
BITS = {"int8": 8, "int4": 4}

# Number of consecutive weights, along a GEMM's inner dimension, that share a scale and a zero point.
BLOCK = 32

# Value of the operator's attribute `accuracy_level` that selects the fast kernels: they quantize activations to 8 bits
# in blocks and multiply integers.
ACCURACY_LEVEL = 4

# Value of `accuracy_level` with which activations stay in float32, and the GEMM computes in float32.
FLOAT_LEVEL = 1

# Least fraction of the weights in GEMMs that must be quantized. It finds a head that was not quantized, which may have
# a fifth of these weights.
LEAST_SHARE = 0.9

# ONNX Runtime's operator for quantized weights, and its domain (onnxruntime, docs/ContribOperators.md).
QUANTIZED, DOMAIN = "MatMulNBits", "com.microsoft"

# Element types of weights. Constants of other types, such as shapes, are not weights.
WEIGHTS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.UINT8}


@dataclass(frozen=True)
class Weight:
    """The constant weight of a GEMM: its name, its number of elements, and its values, float32 [inner, outer].

    `array` is None if the weight cannot be quantized, and `reason` then says why.
    """

    name: str
    numbers: int
    array: Array | None
    reason: str | None = None


def quantize_weights(model: ir.Model, bits: int, *, where: str) -> WeightsRecord:
    """Quantize the weights of all MatMul and Gemm nodes, including the output head, to `bits` (8 or 4) in place.

    Raises:
        GateError: less than LEAST_SHARE of the weights could be quantized. The message names some of the others.
    """
    for node in nodes(model, "MatMul", "Gemm"):
        weight = constant_weight(node)
        if weight is not None and weight.array is not None:
            _replace(model, node, weight.name, weight.array, bits)
    model.graph.opset_imports[DOMAIN] = 1
    tidy(model)
    gemms = coverage(model)
    if (share := taken(gemms)) < LEAST_SHARE:
        left = [f"{one['name']} ({one['reason']})" for one in gemms if not one["bits"]]
        raise GateError(
            f"{where}: only {share:.0%} of the weights in GEMMs could be quantized, and {LEAST_SHARE:.0%} are needed. "
            f"Not quantized: {', '.join(left[:5]) or 'none'}{' and others' if len(left) > 5 else ''}. Build with "
            "--precision fp32."
        )
    return {"bits": bits, "block": BLOCK, "share": share, "products": gemms}


def coverage(model: ir.Model) -> list[WeightOnlyGemm]:
    """Return all GEMMs that have a constant weight, in graph order, and whether each is quantized."""
    gemms: list[WeightOnlyGemm] = []
    for node in nodes(model, "MatMul", "Gemm", QUANTIZED):
        if node.op_type == QUANTIZED and node.inputs[1] is not None:
            numbers = node.attributes.get_int("K", 0) * node.attributes.get_int("N", 0)
            name, bits = str(node.inputs[1].name).removesuffix(".packed"), node.attributes.get_int("bits", 4)
            gemms.append({"name": name, "weights": numbers, "bits": bits, "reason": None})
        elif (weight := constant_weight(node)) is not None:  # None if both inputs are computed, as in attention
            reason = weight.reason or "quantization was not asked for"
            gemms.append({"name": weight.name, "weights": weight.numbers, "bits": None, "reason": reason})
    return gemms


def taken(gemms: list[WeightOnlyGemm]) -> float:
    """Return the fraction of the weights in GEMMs that is quantized, from 0 to 1."""
    total = sum(one["weights"] for one in gemms)
    return sum(one["weights"] for one in gemms if one["bits"]) / max(1, total)


def step_bytes(model: ir.Model) -> int:
    """Return the bytes of the weights that a decode step reads.

    Tables that only a Gather reads do not count, because a step reads just one of their rows for each token.
    """
    found = 0
    for value in model.graph.initializers.values():
        read = any(use.node.op_type != "Gather" or use.idx != 0 for use in value.uses())
        if read and value.dtype in WEIGHTS and value.const_value is not None and len(value.const_value.shape):
            found += value.const_value.nbytes
    return found


def in_float(model: ir.Model) -> int:
    """Make quantized GEMMs compute with float32 activations, in place; return the number of GEMMs."""
    gemms = list(nodes(model, QUANTIZED))
    for node in gemms:
        node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", FLOAT_LEVEL)
    return len(gemms)


def dequantize_weights(model: ir.Model) -> int:
    """Replace each quantized GEMM with a MatMul with its weights in float32, in place; return the number of GEMMs."""
    gemms = list(nodes(model, QUANTIZED))
    for node in gemms:
        weight = add_initializer(model, f"{node.name}.dequantized", _dequantized(node))
        made = ir.node("MatMul", [node.inputs[0], weight], name=f"{node.name}.float")
        made.outputs[0].type, made.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [made], node.outputs, made.outputs)
    tidy(model)
    return len(gemms)


def _dequantized(node: ir.Node) -> Array:
    """Return the weight of a quantized GEMM, float32 [inner, outer].

    Source: onnxruntime, docs/ContribOperators.md. The packed levels are uint8 [outer, blocks, bytes]. With 4 bits, a
    byte has two levels, the first in its lower half. A block has one scale and one zero point; the zero points are
    packed like the levels.
    """
    inner, outer, bits = (node.attributes.get_int(key, 0) for key in ("K", "N", "bits"))
    packed, scales, zeros = (constant(value) for value in node.inputs[1:4])
    assert packed is not None
    assert scales is not None
    assert zeros is not None
    blocks = -(-inner // BLOCK)
    numbers = _unpacked(packed.reshape(outer, -1), bits)[:, : blocks * BLOCK].reshape(outer, blocks, BLOCK)
    middle = _unpacked(zeros.reshape(outer, -1), bits)[:, :blocks, None]
    weight = (numbers - middle) * scales.reshape(outer, blocks, 1).astype(np.float32)
    return np.ascontiguousarray(weight.reshape(outer, -1)[:, :inner].T)


def _unpacked(packed: Array, bits: int) -> Array:
    """Unpack rows of bytes into the levels that they hold, float32 [rows, levels]."""
    if bits == 8:
        return packed.astype(np.float32)
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1).astype(np.float32)


def constant_weight(node: ir.Node) -> Weight | None:
    """Return the constant weight of a MatMul or Gemm, or None if it has none."""
    left, right = node.inputs[0], node.inputs[1]
    turned = node.attributes.get_int("transB", 0) == 1
    if right is not None and (maker := right.producer()) is not None and maker.op_type == "Transpose":
        perm = tuple(maker.attributes.get_ints("perm", [1, 0]))
        if constant(maker.inputs[0]) is not None and perm == (1, 0):
            right, turned = maker.inputs[0], not turned
    array = constant(right)
    if array is None:
        other = constant(left)
        if other is None or other.ndim < 2:
            return None
        return Weight(str(left.name), other.size, None, "it is the left input") if left is not None else None
    assert right is not None
    name = str(right.name)
    if array.ndim != 2:
        return Weight(name, array.size, None, f"it has {array.ndim} dimensions") if array.ndim > 2 else None
    scaled = any(node.attributes.get_float(key, 1.0) != 1.0 for key in ("alpha", "beta"))
    if scaled or node.attributes.get_int("transA", 0) == 1:
        return Weight(name, array.size, None, "its Gemm scales or transposes an input")
    return Weight(name, array.size, np.ascontiguousarray(array.T if turned else array, np.float32))


def _replace(model: ir.Model, node: ir.Node, name: str, array: Array, bits: int) -> None:
    """Replace a node with a MatMulNBits, and an Add if the node is a Gemm with a bias."""
    packed, scales, zeros = _quantizer(bits).qbits_block_quant(array)
    inner, outer = array.shape
    inputs = [
        node.inputs[0],
        *(
            add_initializer(model, f"{name}.{part}", value)
            for part, value in (("packed", packed), ("scales", scales), ("zero_points", zeros))
        ),
    ]
    sizes = {"K": inner, "N": outer, "bits": bits, "block_size": BLOCK, "accuracy_level": ACCURACY_LEVEL}
    made = [ir.node(QUANTIZED, inputs, sizes, domain=DOMAIN, name=str(node.name))]
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if bias is not None:
        made.append(ir.node("Add", [made[0].outputs[0], bias], name=f"{node.name}.bias"))
    for one in made:
        one.outputs[0].type, one.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    ir.convenience.replace_nodes_and_values(model.graph, node, [node], made, node.outputs, made[-1].outputs)


def _quantizer(bits: int):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    """Return ONNX Runtime's quantizer. Importing its module changes the root logger, which is restored here."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    root.handlers[:] = handlers
    root.setLevel(level)
    config = nbits.DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=False, bits=bits)
    return nbits.DefaultWeightOnlyQuantizer(config)
