"""The judge of a compiled graph: what the compiler did not do as the graph asks, by the ONNX nodes of its kernels.

A graph with Q/DQ nodes compiles also where the compiler finds no INT8 or FP8 kernel for it: it then dequantizes and
computes in float16, without a warning. Only its list of kernels shows that.
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
    """What a typed graph asks of the compiler.

    `gemms`: the names of all its GEMMs. `floats`: those that are to be in float32, because values do not fit float16.
    `integers`: those to compute in 8 bits, of the type `quantized`; `recorded`: their number as the quantizer recorded
    it. `attentions`: the two GEMMs of each attention to compute in one kernel, in 8 bits if both are in `integers`.
    """

    gemms: frozenset[str]
    floats: frozenset[str]
    integers: frozenset[str]
    recorded: int
    attentions: tuple[tuple[str, str], ...]
    quantized: str = "int8"


def wanted(model: ir.Model, quantized: QuantizedGemms | None, beyond: Collection[str] = ()) -> Wanted:
    """Return what a typed graph asks; `quantized` is the record of its quantization, None for a graph in float16.

    `beyond` are the names of the tensors that do not fit float16, for which GEMMs are in float32.

    All GEMMs but those of the head and those that the quantizer was told to keep are to be in 8 bits. Attention is to
    be fused in each layer that computes all tokens, not in one that computes the first token only.
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
    """Return the type of the numbers that the GEMMs of a typed graph multiply: `fp8`, or else `int8`."""
    fp8 = any(node.inputs[0].dtype is ir.DataType.FLOAT8E4M3FN for node in nodes(model, "DequantizeLinear"))  # type: ignore[union-attr]
    return "fp8" if fp8 else "int8"


def judge(kernels: list[Kernel], asked: Wanted) -> list[str]:
    """Return what the compiler did not do as the graph asks, each as a text that names a node; empty if it did all."""
    return [
        *_missing(asked),
        *_not_integer(kernels, asked),
        *_not_fused(kernels, asked),
        *_unsuited(kernels, asked),
    ]


def _missing(asked: Wanted) -> Iterator[str]:
    if len(asked.integers) != asked.recorded:
        yield f"the graph has {len(asked.integers)} GEMMs of the {asked.recorded} that were quantized"


def _not_integer(kernels: list[Kernel], asked: Wanted) -> Iterator[str]:
    """Yield the GEMMs that lie in no kernel, or in one whose operands do not both have the type that is wanted.

    The kernel of attention of one query rounds its operands itself.
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
    """Yield the attentions that are not in one kernel, or that do not read and write 8 bits."""
    fused = [kernel for kernel in kernels if kernel.kind == "attention"]
    for pair in asked.attentions:
        holding = [kernel for kernel in fused if set(pair) <= set(kernel.nodes)]
        if len(holding) != 1:
            yield f"{pair[0]}: attention is not fused with {pair[1]} into one kernel"
        elif set(pair) <= asked.integers and (written := holding[0].outputs[0].datatype) != asked.quantized:
            yield f"{pair[0]}: the fused attention writes {written}, and not {asked.quantized}"


def _unsuited(kernels: list[Kernel], asked: Wanted) -> Iterator[str]:
    """Yield the GEMMs that became convolutions, for which there is no INT8 kernel, and those in float32 unasked."""
    for kernel in kernels:
        names = [name for name in kernel.nodes if name in asked.gemms] or [kernel.name]
        unasked = [name for name in names if name not in asked.floats]
        if kernel.kind == "convolution":
            yield f"{', '.join(names)}: compiled as a convolution in {kernel.precision}"
        elif kernel.precision == "fp32" and unasked:
            yield f"{', '.join(unasked)}: in float32"
