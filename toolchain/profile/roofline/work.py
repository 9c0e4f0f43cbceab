"""Count the work of a forward pass from its graph: the operations of the GEMMs, and the bytes that must be moved.

The batch and the length are symbolic dimensions of the graph, so the size of each GEMM is known for any length: a row
of L tokens takes a + b L + c L^2 operations, where c comes from attention. An operation is a multiplication or an
addition. As usual, only GEMMs are counted, and not LayerNorm, softmax or GELU.
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

# Precision -> number of operations in this precision.
Flop = dict[str, float]

BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
NAMES = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
    ir.DataType.FLOAT8E4M3FN: "fp8",
}
ID_BYTES, LOGIT_BYTES = 4, 4

# ONNX Runtime's attention operator. Its inputs query, key and value are [batch, length, width].
ATTENTION = "MultiHeadAttention"


@dataclass(frozen=True)
class Extent:
    """The size of a pass: numbers of rows, tokens and batches, and the sum of the rows' squared lengths (`pairs`)."""

    rows: int
    tokens: int
    pairs: int
    batches: int = 1

    @classmethod
    def of(cls, lengths: Iterable[int], *, batches: int = 1) -> "Extent":
        """Return the size of a pass over rows with these lengths, in tokens."""
        sizes = [int(length) for length in lengths]
        return cls(len(sizes), sum(sizes), sum(size * size for size in sizes), batches)


@dataclass(frozen=True)
class Work:
    """The work of a graph: its GEMM operations, the weights that it reads, and its inputs and outputs.

    `flop`: precision in which GEMMs run -> operations per row, per token, and per pair of tokens of a row.
    `parameters`: stored type -> number of weights that a batch reads. Embedding tables are not counted, because a batch
    reads only some of their rows.
    `inputs`: number of ids per token: one for each input of the graph.
    `outputs`: number of logits per row.
    """

    flop: dict[str, tuple[float, float, float]]
    parameters: dict[str, int]
    inputs: int
    outputs: int

    def operations(self, extent: Extent) -> Flop:
        """Return the operations of a pass, by precision."""
        sizes = (extent.rows, extent.tokens, extent.pairs)
        return {name: sum(map(operator.mul, parts, sizes)) for name, parts in self.flop.items()}

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Stored type -> bytes of the weights in `parameters`."""
        return {name: count * _width(name) for name, count in self.parameters.items()}

    def activation_bytes(self, extent: Extent) -> int:
        """Return the bytes of ids and logits; all other activations may stay on the chip."""
        return extent.tokens * self.inputs * ID_BYTES + extent.rows * self.outputs * LOGIT_BYTES

    def bytes_moved(self, extent: Extent, *, cache_bytes: int = 0) -> int:
        """Return the smallest memory traffic of a pass in bytes.

        It consists of ids, logits and, once per batch, the weights that do not fit into a cache of `cache_bytes`.
        """
        weights = max(0, sum(self.weight_bytes.values()) - cache_bytes)
        return weights * extent.batches + self.activation_bytes(extent)

    def retyped(self, precision: str) -> "Work":
        """Return the same work with all GEMMs and all parameters in one precision."""
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
    """Return the work of a graph in FP32 or FP16, or in INT8 or FP8 with Q/DQ nodes.

    A GEMM of two dequantized inputs runs in INT8 or FP8 if the device has integer GEMMs (`integers`). Any other GEMM
    runs in the type of its output. `runs_as` maps a precision to the one in which the device computes it: for example
    `{"fp16": "fp32"}`, because ONNX Runtime on a CPU computes float16 in float32.

    Raises:
        InputError: the graph does not give the shape of a GEMM, or has a fused operator that is not known here.
    """
    first = next(value for value in model.graph.inputs if value.name == "input_ids")
    assert first.shape is not None
    names = [str(size) for size in first.shape]
    quantized = {one.name for one in cover(model) if integers and one.integers}
    parameters = _parameters(model)
    eight = "fp8" if "fp8" in parameters else "int8"
    flop: dict[str, list[float]] = {}
    for node in model.graph:
        if node.op_type in (FLOAT_GEMMS | INTEGER_GEMMS) - {"MatMul", INTEGER_MATMUL, ATTENTION}:
            raise InputError(
                f"{node.name}: the operations of the fused operator {node.op_type} cannot be counted. "
                "Use the graph from before this fusion."
            )
        if node.op_type in ("MatMul", "Gemm", INTEGER_MATMUL, ATTENTION):
            kind = eight if str(node.name) in quantized else NAMES[node.outputs[0].dtype or ir.DataType.FLOAT]
            kind = (runs_as or {}).get(kind, kind)
            factor, power = _macs(node, *names)
            flop.setdefault(kind, [0.0, 0.0, 0.0])[power] += 2 * factor
    return Work(
        flop={kind: (parts[0], parts[1], parts[2]) for kind, parts in flop.items()},
        parameters=parameters,
        inputs=len(model.graph.inputs),
        outputs=_size(model.graph.outputs[0], names[0])[-1],
    )


def _macs(node: ir.Node, batch: str, length: str) -> tuple[int, int]:
    """Return (factor, power): a GEMM needs factor * L^power multiply-accumulate operations for a row of length L."""
    left, output = node.inputs[0], node.outputs[0]
    if left is None or left.shape is None or output.shape is None or str(output.shape[0]) != batch:
        raise InputError(f"{node.name}: the graph does not give the shape of this GEMM. Build the bundle again.")
    sizes = [*output.shape[1:], left.shape[-1]]
    if node.op_type == ATTENTION:  # queries x keys x width, once for the scores and once for the weighted values
        sizes = [2, *output.shape[1:], _length_of(node.inputs[1])]
    known = [size for size in sizes if isinstance(size, int)]
    lengths = [size for size in sizes if str(size) == length]
    if len(known) + len(lengths) != len(sizes) or len(lengths) > 2:
        raise InputError(
            f"{node.name}: the sizes {list(map(str, sizes))} of this GEMM must be numbers or the sequence length. "
            "Build the bundle again."
        )
    return math.prod(known), len(lengths)


def _length_of(keys: ir.Value | None) -> Any:
    return keys.shape[1] if keys is not None and keys.shape is not None else None


def _size(value: ir.Value, batch: str) -> list[int]:
    if value.shape is None or str(value.shape[0]) != batch or not isinstance(value.shape[-1], int):
        raise InputError(f"{value.name}: the graph does not give the shape of this tensor. Build the bundle again.")
    return [size for size in value.shape if isinstance(size, int)]


def _parameters(model: ir.Model) -> dict[str, int]:
    """Return stored type -> number of weights, without embedding tables: a batch reads only some of their rows."""
    found: Counter[str] = Counter()
    for value in model.graph.initializers.values():
        tables = [use.node.op_type == "Gather" and use.idx == 0 for use in value.uses()]
        if value.const_value is not None and not all(tables):
            kind = value.const_value.dtype
            found[NAMES.get(kind, kind.name.lower())] += value.const_value.size
    return dict(found)
