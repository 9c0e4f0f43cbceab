"""INT8 coverage: which GEMMs run in integers, according to a graph and to the way a runtime executes it on this CPU."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from toolchain import graph
from toolchain.base.tensors import Array
from toolchain.graph import constant
from toolchain.records.bundle import GemmTypes
from toolchain.records.quantization import CoverageRecord
from toolchain.runtimes.openvino import compile_graph
from toolchain.runtimes.openvino_kernels import CONVERSIONS as KINDS
from toolchain.runtimes.openvino_kernels import float_gemms, kernels_of
from toolchain.runtimes.ort import open_session

# Operators of ONNX Runtime that compute a GEMM in integers (onnxruntime, docs/ContribOperators.md).
INTEGER_GEMMS = {
    "QLinearMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QGemm",
    "QAttention",
}

# Operators that compute one or more GEMMs in floating point.
FLOAT_GEMMS = {"MatMul", "FusedMatMul", "Attention", "MultiHeadAttention"}

NO_KERNEL = "ONNX Runtime has no integer kernel for it on this CPU: such kernels need a uint8 left input"

# Why a GEMM of an FP8 graph does not run in FP8 on a CPU, for reports.
FP8_ON_A_CPU = "no CPU has kernels for FP8"

# Operators that convert or move numbers and compute nothing -> their name in reports.
CONVERSIONS = {
    "QuantizeLinear": "quantize",
    "DequantizeLinear": "dequantize",
    "Cast": "cast",
    "Transpose": "transpose",
    "Reshape": "reshape",
}


@dataclass(frozen=True)
class Coverage:
    """Whether one GEMM of a Q/DQ graph can run in integers.

    `integers`: whether both inputs come from DequantizeLinear, so that a runtime may compute in integers. `tensorrt`:
    whether they are also int8 with zero point 0, or FP8, as TensorRT needs. `reason`: why one of the two is false; None
    if both are true.
    """

    name: str
    kind: str
    integers: bool
    tensorrt: bool
    reason: str | None

    def to_json(self) -> CoverageRecord:
        """Return the coverage as `toolchain explain --json` prints it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "integers": self.integers,
            "tensorrt": self.tensorrt,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class OnThisCpu:
    """How a runtime executes a graph on this CPU.

    `in_float`: names of the GEMMs that the runtime computes in floating point, or names of their outputs.
    `conversions`: kind -> number of nodes that only convert or move numbers. `why`: why a quantized GEMM runs in
    floating point.
    """

    in_float: frozenset[str]
    conversions: dict[str, int]
    why: str


def on_this_cpu(file: Path, backend: str) -> OnThisCpu:
    """Return how ONNX Runtime (`ort`) or OpenVINO (`openvino`) executes a graph on this CPU.

    ONNX Runtime renames and fuses nodes, so a GEMM is in floating point if a float node of the optimised graph has its
    name or computes its output. For OpenVINO, `in_float` has quantized GEMMs only (see `float_gemms`).

    Raises:
        InputError: the graph cannot be loaded.
        MachineError: the runtime is not installed.
    """
    if backend == "openvino":
        compiled = compile_graph(file)
        kinds = Counter(KINDS[one.type] for one in kernels_of(compiled) if one.type in KINDS)
        return OnThisCpu(
            frozenset(float_gemms(compiled, graph.load(file))),
            dict(kinds),
            "OpenVINO computes it in float32 on this CPU",
        )
    model = optimised(file)
    floats = [node for node in model.graph if node.op_type in FLOAT_GEMMS]
    names = {str(node.name) for node in floats} | {str(value.name) for node in floats for value in node.outputs}
    return OnThisCpu(frozenset(names), conversions(model), NO_KERNEL)


def cover(model: ir.Model) -> list[Coverage]:
    """Return the INT8 coverage of each GEMM of a graph, in graph order."""
    return [_cover(node) for node in graph.nodes(model, "MatMul", "Gemm", *sorted(INTEGER_GEMMS))]


def _cover(node: ir.Node) -> Coverage:
    name = str(node.name)
    if node.op_type in INTEGER_GEMMS:
        return Coverage(name, node.op_type, True, False, "an integer operator of ONNX Runtime, which TensorRT lacks")
    sides = [_side(value, side) for value, side in zip(node.inputs[:2], ("left", "right"), strict=True)]
    kind = "attention" if all(constant_behind(value) is None for value in node.inputs[:2]) else "linear"
    kind = "head" if node.op_type == "Gemm" else kind
    reasons = [reason for integers, reason in sides if reason]
    integers = all(integers for integers, _ in sides)
    if kind == "head" and not integers:
        reasons = ["it is the classification head, which reads one vector per row and stays in float on purpose"]
    return Coverage(name, kind, integers, integers and not reasons, "; ".join(reasons) or None)


def _side(value: ir.Value | None, side: str) -> tuple[bool, str | None]:
    """Return whether an input of a GEMM is dequantized, and why TensorRT does not accept it (None if it does)."""
    source = value.producer() if value is not None else None
    # A Transpose or Reshape between the Q/DQ pair and the GEMM does not change values.
    while source is not None and source.op_type in ("Transpose", "Reshape"):
        value = source.inputs[0]
        source = value.producer() if value is not None else None
    if source is None or source.op_type != "DequantizeLinear":
        return False, f"its {side} input is float, without Q/DQ before it"
    zero = constant(source.inputs[2]) if len(source.inputs) > 2 else None
    if zero is not None and str(zero.dtype) not in ("int8", "float8_e4m3fn"):
        return True, f"its {side} input is {zero.dtype}: TensorRT accepts int8 and FP8 only"
    if zero is not None and zero.astype("float32").any():
        return True, f"its {side} input has a zero point other than 0"
    return True, None


def constant_behind(value: ir.Value | None) -> Array | None:
    """Return the constant that a value comes from, directly or after DequantizeLinear, Transpose or Reshape nodes.

    Return None if the value depends on the inputs of the graph.
    """
    source = value.producer() if value is not None else None
    while source is not None and source.op_type in ("Transpose", "Reshape", "DequantizeLinear"):
        value = source.inputs[0]
        source = value.producer() if value is not None else None
    return constant(value)


def optimised(model: Path) -> ir.Model:
    """Return the graph as ONNX Runtime optimises it for this CPU."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimised.onnx"
        open_session(model, optimised=file)
        return graph.load(file)


def integer_coverage(model: Path) -> GemmTypes:
    """Return the numbers of integer and of float GEMMs that ONNX Runtime runs here, without the Gemm of the head."""
    types = [node.op_type for node in optimised(model).graph]
    return {
        "integer": sum(kind in INTEGER_GEMMS for kind in types),
        "float": sum(kind in FLOAT_GEMMS for kind in types),
    }


def conversions(model: ir.Model) -> dict[str, int]:
    """Return kind -> number of nodes that only convert or move numbers (see CONVERSIONS)."""
    return dict(Counter(CONVERSIONS[node.op_type] for node in model.graph if node.op_type in CONVERSIONS))
