"""The work of a pass, counted from its graph: operations of the matrix products, and bytes that must move.

The graph names its batch and its length, so that the size of each product is known for every row: what a row of L
tokens takes is a + b L + c L^2 operations, c being attention's. An operation is a multiplication or an addition. What
is not a product (LayerNorm, softmax, GELU) is not counted, as is usual.
"""

import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from toolchain.errors import InputError
from toolchain.graph.integer import INTEGER_MATMUL
from toolchain.int8.coverage import FLOAT_GEMMS, INTEGER_GEMMS, cover

Flop = dict[str, float]
"""Precision -> operations."""

BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1}
NAMES = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
ID_BYTES, LOGIT_BYTES = 4, 4

ATTENTION = "MultiHeadAttention"
"""ONNX Runtime's, of query, key and value [batch, length, width]."""


@dataclass(frozen=True)
class Extent:
    """What a pass runs over: `rows`, their `tokens`, `pairs`, the sum of their squared lengths, and `batches`."""

    rows: int
    tokens: int
    pairs: int
    batches: int = 1

    @classmethod
    def of(cls, lengths: Iterable[int], *, batches: int = 1) -> "Extent":
        """Return the extent of rows of these lengths."""
        sizes = [int(length) for length in lengths]
        return cls(len(sizes), sum(sizes), sum(size * size for size in sizes), batches)


@dataclass(frozen=True)
class Work:
    """What a graph computes and reads.

    `flop`: precision that products run in -> operations of a row, of each of its tokens, of each pair of them.
    `parameters`: stored type -> how many numbers the graph holds in it and reads in every batch; rows that are
    looked up, as those of the word table are, are not among them. `inputs` and `outputs`: ids a token, logits a row.
    """

    flop: dict[str, tuple[float, float, float]]
    parameters: dict[str, int]
    inputs: int
    outputs: int

    def operations(self, extent: Extent) -> Flop:
        """Return the operations of a pass, by the precision that they run in."""
        sizes = (extent.rows, extent.tokens, extent.pairs)
        return {name: sum(map(operator.mul, parts, sizes)) for name, parts in self.flop.items()}

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Stored type -> bytes of the parameters."""
        return {name: count * _width(name) for name, count in self.parameters.items()}

    def activation_bytes(self, extent: Extent) -> int:
        """Return what must enter and leave besides weights: ids and logits; all between may stay on the chip."""
        return extent.tokens * self.inputs * ID_BYTES + extent.rows * self.outputs * LOGIT_BYTES

    def bytes_moved(self, extent: Extent, *, cache_bytes: int = 0) -> int:
        """Return the least that a pass moves: each weight once a batch, but what `cache_bytes` keep between batches."""
        weights = max(0, sum(self.weight_bytes.values()) - cache_bytes)
        return weights * extent.batches + self.activation_bytes(extent)

    def retyped(self, precision: str) -> "Work":
        """Return the same work with every product and every parameter in one precision."""
        flop = tuple(map(sum, zip(*self.flop.values(), strict=True)))
        return Work(
            {precision: (flop[0], flop[1], flop[2])},
            {precision: sum(self.parameters.values())},
            self.inputs,
            self.outputs,
        )


def _width(name: str) -> int:
    return BYTES[name] if name in BYTES else np.dtype(name).itemsize


def count(model: ir.Model, *, integers: bool = True, runs_as: Mapping[str, str] | None = None) -> Work:
    """Count the work of a graph: FP32, FP16 or INT8 with Q/DQ nodes.

    A product of two dequantised inputs runs in int8 if the device multiplies `integers`, any other in the type of its
    output. `runs_as` says which types run in another: float16 on ONNX Runtime's CPU is `{"fp16": "fp32"}`.

    Raises:
        InputError: the graph does not say how large a product is, or has operators that fuse several.
    """
    first = next(value for value in model.graph.inputs if value.name == "input_ids")
    assert first.shape is not None
    names = [str(size) for size in first.shape]
    quantized = {one.name for one in cover(model) if integers and one.integers}
    flop: dict[str, list[float]] = {}
    for node in model.graph:
        if node.op_type in (FLOAT_GEMMS | INTEGER_GEMMS) - {"MatMul", INTEGER_MATMUL, ATTENTION}:
            raise InputError(f"{node.name}: a {node.op_type}, whose work is not known. Count that of the graph before.")
        if node.op_type in ("MatMul", "Gemm", INTEGER_MATMUL, ATTENTION):
            kind = "int8" if str(node.name) in quantized else NAMES[node.outputs[0].dtype or ir.DataType.FLOAT]
            kind = (runs_as or {}).get(kind, kind)
            factor, power = _macs(node, *names)
            flop.setdefault(kind, [0.0, 0.0, 0.0])[power] += 2 * factor
    return Work(
        flop={kind: (parts[0], parts[1], parts[2]) for kind, parts in flop.items()},
        parameters=_parameters(model),
        inputs=len(model.graph.inputs),
        outputs=_size(model.graph.outputs[0], names[0])[-1],
    )


def _macs(node: ir.Node, batch: str, length: str) -> tuple[int, int]:
    """Return the multiply-accumulates of a product as a factor, and the power of a row's length that goes with it."""
    left, output = node.inputs[0], node.outputs[0]
    if left is None or left.shape is None or output.shape is None or str(output.shape[0]) != batch:
        raise InputError(f"{node.name}: the graph does not say how large it is. Build the bundle again.")
    sizes = [*output.shape[1:], left.shape[-1]]
    if node.op_type == ATTENTION:  # queries by keys by width, for the scores and again for the sums of values
        sizes = [2, *output.shape[1:], _length_of(node.inputs[1])]
    known = [size for size in sizes if isinstance(size, int)]
    lengths = [size for size in sizes if str(size) == length]
    if len(known) + len(lengths) != len(sizes) or len(lengths) > 2:
        raise InputError(f"{node.name}: a product of {list(map(str, sizes))}, not of lengths. Build the bundle again.")
    return math.prod(known), len(lengths)


def _length_of(keys: ir.Value | None) -> Any:
    return keys.shape[1] if keys is not None and keys.shape is not None else None


def _size(value: ir.Value, batch: str) -> list[int]:
    if value.shape is None or str(value.shape[0]) != batch or not isinstance(value.shape[-1], int):
        raise InputError(f"{value.name}: the graph does not say how large it is. Build the bundle again.")
    return [size for size in value.shape if isinstance(size, int)]


def _parameters(model: ir.Model) -> dict[str, int]:
    """Return stored type -> number of constants; a table that rows are looked up in is not read as a whole."""
    found: Counter[str] = Counter()
    for value in model.graph.initializers.values():
        tables = [use.node.op_type == "Gather" and use.idx == 0 for use in value.uses()]
        if value.const_value is not None and not all(tables):
            kind = value.const_value.dtype
            found[NAMES.get(kind, kind.name.lower())] += value.const_value.size
    return dict(found)
