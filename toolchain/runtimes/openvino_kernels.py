"""The kernels of a model that OpenVINO compiled: their names and types, and the ONNX nodes that each one computes.

Source: `CompiledModel.get_runtime_model` and the keys of its nodes (openvino/runtime/exec_model_info.hpp).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from toolchain import graph
from toolchain.graph.integer import INTEGER_MATMUL

# Types of the kernels that compute one GEMM.
GEMMS = {"FullyConnected", "MatMul"}

# The type of a kernel that OpenVINO generates for several nodes. On processors with AVX-512, it computes a whole
# attention, from the GEMM of queries and keys to the GEMM of probabilities and values. A compiled model from the cache
# lists only the name of the last GEMM.
GENERATED = "Subgraph"

# Suffix that OpenVINO adds to the name of a GEMM that it computes in integers.
DEQUANTIZED = "/Dequantization"

# Types of kernels that convert or move numbers and compute nothing -> their name in reports.
CONVERSIONS = {
    "FakeQuantize": "quantize",
    "Quantize": "quantize",
    "Convert": "cast",
    "Reorder": "reorder",
    "Transpose": "transpose",
    "Reshape": "reshape",
}


@dataclass(frozen=True)
class Kernel:
    """One kernel: its name, its layer type, and the names of the kernels that read its outputs (`readers`).

    `implementation` is OpenVINO's name for the code of the kernel, which ends with the number type, such as
    `brgemm_avx512_i8`. `made_from` are the names of the nodes that it computes: ONNX nodes, and nodes that OpenVINO
    added.
    """

    name: str
    type: str
    implementation: str
    made_from: tuple[str, ...]
    readers: tuple[str, ...]

    @property
    def is_gemm(self) -> bool:
        """Whether the kernel computes exactly one GEMM."""
        return self.type in GEMMS

    @property
    def in_integers(self) -> bool:
        """Whether the kernel computes with int8 or uint8 numbers."""
        return self.implementation.lower().endswith(("_i8", "_u8"))


def kernels_of(compiled: Any) -> Iterator[Kernel]:
    """Yield the kernels of a compiled model in the order in which they run."""
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = {key: value.astype(str) for key, value in node.get_rt_info().items() if hasattr(value, "astype")}
        if facts.get("layerType") in (None, "Const", "Input", "Output"):
            continue
        readers = (port.get_node() for output in node.outputs() for port in output.get_target_inputs())
        yield Kernel(
            node.get_friendly_name(),
            facts["layerType"],
            facts.get("primitiveType", ""),
            tuple(name.partition(DEQUANTIZED)[0] for name in facts.get("originalLayersNames", "").split(",")),
            tuple(reader.get_friendly_name() for reader in readers),
        )


def integer_gemms(compiled: Any, model: ir.Model) -> int:
    """Return how many GEMMs OpenVINO computes in integers. `compiled` was compiled from the graph `model`."""
    wanted = quantized_gemms(model)
    integers = [one for one in kernels_of(compiled) if one.in_integers]
    attentions = sum(one.type == GENERATED and not wanted.isdisjoint(one.made_from) for one in integers)
    return sum(one.is_gemm for one in integers) + 2 * attentions


def float_gemms(compiled: Any, model: ir.Model) -> set[str]:
    """Return the names of the quantized GEMMs of a graph that the compiled model computes in float32.

    They are found by the names of float kernels, because OpenVINO does not keep the name of every integer GEMM, nor of
    the GEMMs inside its attention kernels.
    """
    wanted = quantized_gemms(model)
    if not integer_gemms(compiled, model):
        return wanted
    floats = (one for one in kernels_of(compiled) if (one.is_gemm or one.type == GENERATED) and not one.in_integers)
    return wanted & {name for one in floats for name in one.made_from}


def quantized_gemms(model: ir.Model) -> set[str]:
    """Return the names of the quantized GEMMs of a graph: both operands are integers or come from DequantizeLinear."""
    pairs = (node for node in graph.nodes(model, "MatMul", "Gemm") if all(map(_is_dequantized, node.inputs[:2])))
    return {str(node.name) for node in (*pairs, *graph.nodes(model, INTEGER_MATMUL))}


def _is_dequantized(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in ("Transpose", "Reshape"):
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node is not None and node.op_type == "DequantizeLinear"
