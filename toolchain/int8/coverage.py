"""Which products of a graph are in integers: as the graph says, and as ONNX Runtime really runs it."""

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from toolchain import graph
from toolchain.graph import constant
from toolchain.runtimes.ort import open_session

INTEGER_PRODUCTS = {
    "QLinearMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QGemm",
    "QAttention",
}
FLOAT_PRODUCTS = {"MatMul", "FusedMatMul", "Attention", "MultiHeadAttention"}
CONVERSIONS = {
    "QuantizeLinear": "quantize",
    "DequantizeLinear": "dequantize",
    "Cast": "cast",
    "Transpose": "transpose",
    "Reshape": "reshape",
}
"""Nodes that move or convert numbers and compute nothing."""


@dataclass(frozen=True)
class Coverage:
    """How one product stands in a Q/DQ graph.

    `integers`: both inputs come from DequantizeLinear, so a runtime may compute in integers. `tensorrt`: and both
    are int8 with zero point 0, as TensorRT wants it. `reason` says why not; None if both hold.
    """

    name: str
    kind: str
    integers: bool
    tensorrt: bool
    reason: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the record that `explain` prints."""
        return asdict(self)


def cover(model: ir.Model) -> list[Coverage]:
    """Return how each MatMul and Gemm of a graph stands, in graph order."""
    return [_cover(node) for node in graph.nodes(model, "MatMul", "Gemm", *sorted(INTEGER_PRODUCTS))]


def _cover(node: ir.Node) -> Coverage:
    name = str(node.name)
    if node.op_type in INTEGER_PRODUCTS:
        return Coverage(name, node.op_type, True, False, "an integer operator of ONNX Runtime, which TensorRT has not")
    sides = [_side(value, side) for value, side in zip(node.inputs[:2], ("left", "right"), strict=True)]
    kind = "attention" if all(constant_behind(value) is None for value in node.inputs[:2]) else "linear"
    kind = "head" if node.op_type == "Gemm" else kind
    reasons = [reason for integers, reason in sides if reason]
    integers = all(integers for integers, _ in sides)
    if kind == "head" and not integers:
        reasons = ["the classification head, one vector a row: left in float on purpose"]
    return Coverage(name, kind, integers, integers and not reasons, "; ".join(reasons) or None)


def _side(value: ir.Value | None, side: str) -> tuple[bool, str | None]:
    """Return whether an input is dequantised, and what keeps it from TensorRT's int8."""
    source = value.producer() if value is not None else None
    # A transposed or reshaped integer is still one.
    while source is not None and source.op_type in ("Transpose", "Reshape"):
        value = source.inputs[0]
        source = value.producer() if value is not None else None
    if source is None or source.op_type != "DequantizeLinear":
        return False, f"its {side} input is float, with no Q/DQ before it"
    zero = constant(source.inputs[2]) if len(source.inputs) > 2 else None
    if zero is not None and str(zero.dtype) != "int8":
        return True, f"its {side} input is {zero.dtype}: TensorRT takes int8 only"
    if zero is not None and zero.any():
        return True, f"its {side} input has a zero point other than 0"
    return True, None


def constant_behind(value: ir.Value | None) -> Any:
    """Return the constant that a value is, or is dequantised from, or None."""
    source = value.producer() if value is not None else None
    while source is not None and source.op_type in ("Transpose", "Reshape", "DequantizeLinear"):
        value = source.inputs[0]
        source = value.producer() if value is not None else None
    return constant(value)


def optimised(model: Path) -> ir.Model:
    """Return the graph as ONNX Runtime rewrites it for this CPU."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimised.onnx"
        open_session(model, optimised=file)
        return graph.load(file)


def integer_coverage(model: Path) -> dict[str, int]:
    """Return how many products the optimised graph holds: `integer` and `float`.

    The classification head's Gemm, one vector a row, is not counted.
    """
    types = [node.op_type for node in optimised(model).graph]
    return {
        "integer": sum(kind in INTEGER_PRODUCTS for kind in types),
        "float": sum(kind in FLOAT_PRODUCTS for kind in types),
    }


def conversions(model: ir.Model) -> dict[str, int]:
    """Return how many nodes of a graph only move or convert numbers, by kind."""
    return dict(Counter(CONVERSIONS[node.op_type] for node in model.graph if node.op_type in CONVERSIONS))
