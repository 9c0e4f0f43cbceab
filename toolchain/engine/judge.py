"""Checks whether the compiler kept the precisions and the fused attention that a graph asks for.

If the compiler finds no INT8 or FP8 kernel for a GEMM between Q/DQ nodes, it dequantizes and computes in float16,
without a warning. Only its list of kernels, with the ONNX nodes of each, shows that.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from toolchain.engine.kernels import MULTIPLYING, Kernel
from toolchain.graph import nodes
from toolchain.graph.fp16 import large_constants, reading_or_making
from toolchain.graph.gemms import float_gemms
from toolchain.graph.trt_fusable import attention_blocks
from toolchain.records.bundle import QuantizedGemms


@dataclass(frozen=True)
class Wanted:
    """The precisions and the fused attention that a typed graph asks the compiler for.

    `gemms` are the names of all GEMMs. `floats` are the GEMMs that must be in float32, because their values do not fit
    float16. `integers` are the GEMMs that must be in 8 bits, in the datatype `quantized`; `recorded` is how many GEMMs
    the quantizer recorded. `attentions` has the two GEMMs of each attention that must become one kernel, which must be
    in 8 bits if both GEMMs are in `integers`.
    """

    gemms: frozenset[str]
    floats: frozenset[str]
    integers: frozenset[str]
    recorded: int
    attentions: tuple[tuple[str, str], ...]
    quantized: str = "int8"


def wanted(model: ir.Model, quantized: QuantizedGemms | None, beyond: Collection[str] = ()) -> Wanted:
    """Return what a typed graph asks the compiler for.

    `quantized` is the record of the graph's quantization, None for a graph in float16. `beyond` names the tensors whose
    values do not fit float16; GEMMs that read or write them must be in float32.

    All GEMMs must be in 8 bits, except those of the head and those that the quantizer was told to keep. Attention must
    be fused in each layer that computes all tokens, but not in a layer that computes only the first token.
    """
    integers: frozenset[str] = frozenset()
    if quantized is not None:
        integers = frozenset(str(node.name) for node in nodes(model, "MatMul")) - set(quantized["kept"])
    attentions = []
    for block in attention_blocks(model):
        pair = (str(block.first.name), str(block.second.name))
        shape = block.softmax.outputs[0].shape
        one_token = shape is not None and len(shape) > 1 and shape[-2] == 1
        if not one_token and (quantized is None or (pair[0] in integers) == (pair[1] in integers)):
            attentions.append(pair)
    recorded = 0 if quantized is None else quantized["linear"] + quantized["attention"]
    gemms = frozenset(str(node.name) for node in nodes(model, "MatMul", "Gemm"))
    large = {str(node.name) for node in reading_or_making(model, {*beyond, *large_constants(model)})}
    floats = frozenset(large.intersection(float_gemms(model)))
    return Wanted(gemms, floats, integers, recorded, tuple(attentions), _number_type(model))


def _number_type(model: ir.Model) -> str:
    """Return the 8-bit datatype of a quantized graph: `fp8` if a DequantizeLinear reads FP8, else `int8`."""
    fp8 = any(node.inputs[0].dtype is ir.DataType.FLOAT8E4M3FN for node in nodes(model, "DequantizeLinear"))  # type: ignore[union-attr]
    return "fp8" if fp8 else "int8"


def judge(kernels: list[Kernel], asked: Wanted) -> list[str]:
    """Return one text for each ONNX node that was not compiled as the graph asks; an empty list if all were."""
    return [
        *_missing(asked),
        *_not_integer(kernels, asked),
        *_not_fused(kernels, asked),
        *_unsuited(kernels, asked),
    ]


def _missing(asked: Wanted) -> Iterator[str]:
    if len(asked.integers) != asked.recorded:
        recorded = f"but the quantizer recorded {asked.recorded}"
        yield f"the graph has {len(asked.integers)} GEMMs to compute in 8 bits, {recorded}"


def _not_integer(kernels: list[Kernel], asked: Wanted) -> Iterator[str]:
    """Yield a text for each GEMM that must be in 8 bits, but has no kernel, or one whose operands have another type.

    Kernels of attention for one query are left out, because they read float16 and round their operands themselves.
    """
    for name in sorted(asked.integers):
        holding = [kernel for kernel in kernels if kernel.kind in MULTIPLYING and name in kernel.nodes]
        if not holding:
            yield f"{name}: no kernel computes it as a GEMM"
        for kernel in holding:
            if not kernel.is_one_query and kernel.precision != asked.quantized:
                operands = " by ".join(operand.datatype for operand in kernel.operands)
                yield f"{name}: not in {asked.quantized.upper()}, because its kernel multiplies {operands}"


def _not_fused(kernels: list[Kernel], asked: Wanted) -> Iterator[str]:
    """Yield a text for each attention that is not one fused kernel, or must be in 8 bits but writes another type."""
    fused = [kernel for kernel in kernels if kernel.kind == "attention"]
    for pair in asked.attentions:
        holding = [kernel for kernel in fused if set(pair) <= set(kernel.nodes)]
        if len(holding) != 1:
            yield f"{pair[0]}: attention is not fused with {pair[1]} into one kernel"
        elif set(pair) <= asked.integers and (written := holding[0].outputs[0].datatype) != asked.quantized:
            yield f"{pair[0]}: the fused attention writes {written}, and not {asked.quantized}"


def _unsuited(kernels: list[Kernel], asked: Wanted) -> Iterator[str]:
    """Yield a text for each kernel that computes GEMMs as a convolution, or in float32 unlike in the graph.

    TensorRT-RTX has no INT8 kernels for such convolutions.
    """
    for kernel in kernels:
        names = [name for name in kernel.nodes if name in asked.gemms] or [kernel.name]
        unasked = [name for name in names if name not in asked.floats]
        if kernel.kind == "convolution":
            yield f"{', '.join(names)}: compiled as a convolution in {kernel.precision}"
        elif kernel.precision == "fp32" and unasked:
            yield f"{', '.join(unasked)}: computed in float32, unlike in the graph"
