"""Checks whether TensorRT can fuse the attention of a typed graph into one kernel, without a plugin.

TensorRT recognises one pattern: a GEMM of Q and K that are already scaled, at most one addition of a mask, softmax, and
the GEMM with V, in float16, bfloat16 or INT8, at head sizes that it has kernels for. With any other node in between it
runs the operators one by one, without a warning. The conditions are those that NVIDIA documents (TensorRT
documentation, "Fused Attention"). TensorRT may still not fuse a graph that meets them all; the layers of the
engine show whether it did.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from toolchain.graph import constant, nodes
from toolchain.graph.gemms import attention_gemms

HALF = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}

# Head sizes in float16 and bfloat16, head sizes in INT8, and the largest length in tokens in INT8 for which NVIDIA
# documents fused kernels.
HALF_HEADS = range(16, 257, 8)
INT8_HEADS = (16, 32, 64)
INT8_LENGTH = 512

QDQ = {"QuantizeLinear", "DequantizeLinear"}

# Operators that only move or convert numbers, so Q/DQ nodes may come before or after them.
MOVES = {"Transpose", "Reshape", "Cast"}

# Largest number of nodes between a GEMM and a softmax that are taken for parts of the same attention.
DEPTH = 8


@dataclass(frozen=True)
class AttentionBlock:
    """One attention: its two GEMMs, its softmax, and the nodes between them."""

    first: ir.Node
    before: list[ir.Node]
    softmax: ir.Node
    after: list[ir.Node]
    second: ir.Node

    @property
    def inputs(self) -> dict[str, ir.Value]:
        """The inputs of the two GEMMs: Q, K, probabilities and V."""
        values = (*self.first.inputs[:2], *self.second.inputs[:2])
        return {name: value for name, value in zip(("Q", "K", "probabilities", "V"), values, strict=True) if value}


def attention_faults(model: ir.Model, *, max_length: int) -> list[str]:
    """Return the reasons why TensorRT would not fuse the attention of this graph; empty if the conditions are met.

    Missing scaling is not reported, because it looks like scaling that is folded into weights. Scaling after the first
    GEMM is reported.
    """
    gemms = _gemms_of_activations(model)
    if not gemms:
        return ["no attention: the graph has no GEMM of two activations"]
    if not any(_is_fast(value) for node in gemms for value in node.inputs):
        return ["float32 GEMMs are not fused: build with --precision fp16 or int8"]
    blocks = attention_blocks(model)
    found = {node for block in blocks for node in (block.first, block.second)}
    faults = [
        f"{node.name}: not part of an attention, which is a GEMM, a softmax and a GEMM"
        for node in gemms
        if node not in found
    ]
    for block in blocks:
        reasons = [*_type_faults(block), *_size_faults(block, max_length), *_pattern_faults(block), *_qdq_faults(block)]
        faults += [f"{block.first.name}: {reason}" for reason in reasons]
    return faults


def attention_blocks(model: ir.Model) -> list[AttentionBlock]:
    """Return the attentions of a graph in graph order: each is a GEMM, a softmax and a GEMM, with few nodes between."""
    gemms, found = _gemms_of_activations(model), []
    for softmax in nodes(model, "Softmax"):
        above = _path(softmax, gemms, up=True, depth=DEPTH)
        below = _path(softmax, gemms, up=False, depth=DEPTH)
        if above and below:
            found.append(AttentionBlock(above[-1], above[:-1], softmax, below[:-1], below[-1]))
    return found


def _gemms_of_activations(model: ir.Model) -> list[ir.Node]:
    return [node for node in attention_gemms(model) if not _is_linear(node)]


def _path(node: ir.Node, gemms: list[ir.Node], *, up: bool, depth: int) -> list[ir.Node] | None:
    """Return the path from `node` (excluded) to the nearest of `gemms`; None if more than `depth` nodes are between.

    If `up`, the path follows inputs, otherwise outputs. It never crosses another MatMul or a Softmax.
    """
    if up:
        nearby = [value.producer() for value in node.inputs if value is not None]
    else:
        nearby = [use.node for value in node.outputs for use in value.uses()]
    for other in nearby:
        if other in gemms:
            return [other]
    for other in nearby:
        if depth and other is not None and other.op_type not in {"MatMul", "Softmax"}:
            rest = _path(other, gemms, up=up, depth=depth - 1)
            if rest:
                return [other, *rest]
    return None


def _type_faults(block: AttentionBlock) -> Iterator[str]:
    for name, value in block.inputs.items():
        if not _is_fast(value):
            dtype = value.dtype.name if value.dtype else "of unknown type"
            yield f"{name} is {dtype}, and only FLOAT16, BFLOAT16 and dequantized INT8 are fused"


def _size_faults(block: AttentionBlock, max_length: int) -> Iterator[str]:
    int8 = _uses_int8(block)
    for name in ("Q", "V"):
        size = _head_size(block.inputs[name])
        if size is None:
            yield f"the head size of {name} is not known"
        elif int8 and size not in INT8_HEADS:
            yield f"head size {size} of {name}: in INT8 it must be one of {', '.join(map(str, INT8_HEADS))}"
        elif size not in HALF_HEADS:
            yield f"head size {size} of {name}: it must be a multiple of 8 from 16 to 256"
    if int8 and max_length > INT8_LENGTH:
        yield f"length {max_length}: attention in INT8 is fused only up to {INT8_LENGTH} tokens"


def _pattern_faults(block: AttentionBlock) -> Iterator[str]:
    additions = [node for node in block.before if node.op_type == "Add"]
    if len(additions) > 1:
        yield f"{len(additions)} additions before softmax; only the addition of the mask is expected"
    for node in block.before:
        if node.op_type in {"Mul", "Div"}:
            yield f"{node.name} scales after the first GEMM; Q or K must be scaled before it"
        elif node.op_type not in {"Add", "Cast"}:
            yield f"{node.name} ({node.op_type}) is between the first GEMM and softmax; only a mask may be added there"
    for node in block.after:
        if node.op_type not in QDQ | {"Cast"}:
            yield f"{node.name} ({node.op_type}) is between softmax and the second GEMM; no operator may be there"
    if any(_is_dequantized(value) for node in additions for value in node.inputs):
        yield "the addition of the mask reads a tensor dequantized from INT8"


def _qdq_faults(block: AttentionBlock) -> Iterator[str]:
    if not _uses_int8(block):
        return
    for name, value in block.inputs.items():
        if not _is_dequantized(value):
            yield f"the attention is in INT8, but {name} has no Q/DQ nodes"
    if not _is_quantized_later(block.second.outputs[0]):
        yield "the attention is in INT8, but the output of the second GEMM has no Q/DQ nodes"


def _uses_int8(block: AttentionBlock) -> bool:
    return any(_is_dequantized(value) for value in block.inputs.values())


def _is_fast(value: ir.Value | None) -> bool:
    return value is not None and (value.dtype in HALF or _is_dequantized(value))


def _is_linear(node: ir.Node) -> bool:
    """Return whether the second input of a GEMM is a quantized constant, so that it is a linear layer."""
    source = _source(node.inputs[1])
    return source is not None and source.op_type == "DequantizeLinear" and constant(source.inputs[0]) is not None


def _is_dequantized(value: ir.Value | None) -> bool:
    """Return whether a value is an activation that was dequantized from INT8."""
    source = _source(value)
    return source is not None and source.op_type == "DequantizeLinear" and constant(source.inputs[0]) is None


def _source(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes a value, skipping nodes that only move or convert it (MOVES)."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in MOVES:
        value = node.inputs[0]
        node = value.producer() if value is not None else None
    return node


def _is_quantized_later(value: ir.Value) -> bool:
    readers = [use.node for use in value.uses()]
    return any(
        node.op_type == "QuantizeLinear" or (node.op_type in MOVES and _is_quantized_later(node.outputs[0]))
        for node in readers
    )


def _head_size(value: ir.Value) -> int | None:
    size = value.shape[-1] if value.shape is not None and len(value.shape) else None
    return size if isinstance(size, int) else None
