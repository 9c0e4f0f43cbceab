"""The kernels that NVIDIA's compiler makes of a graph: layers.json beside a plan of TensorRT-RTX."""

from typing import Literal, TypedDict

KernelKind = Literal["gemm", "attention", "convolution", "elementwise", "copy", "other"]


class TensorRecord(TypedDict):
    """A tensor that a kernel reads or writes."""

    name: str
    """The compiler's name; that of the ONNX tensor or initializer where there is one."""
    dimensions: list[int]
    """Its size; -1 where it varies between the shapes of the optimisation profile."""
    datatype: str
    """`int8`, `fp16`, `bf16`, `fp32`, `int32`, `int64`, `bool`, or the compiler's own name of another type."""


class KernelRecord(TypedDict):
    """One kernel."""

    name: str
    """The compiler's name: the ONNX nodes of a GEMM, or the operations of a fused kernel, each cut to four letters."""
    kind: KernelKind
    """`gemm`, `attention` (one fused kernel), `convolution`, `elementwise` (all else that computes), `copy` (moves or
    converts numbers and computes nothing), or `other` for a type of layer that is not known here."""
    inputs: list[TensorRecord]
    """The activations that it reads."""
    constants: list[TensorRecord]
    """The weights and numbers that it reads."""
    outputs: list[TensorRecord]
    """The activations that it writes."""
    precision: str | None
    """Datatype in which it multiplies matrices: `int8` only if both operands are; null if it multiplies none, or the
    compiler does not list its operands."""
    bytes: int | None
    """Bytes that it reads and writes, of a table only the rows that are looked up; null if a size varies."""
    operations: int | None
    """Multiplications and additions of its GEMMs, 0 if it has none; null if a size varies."""
    nodes: list[str]
    """Names of the ONNX nodes that it computes, or a part of which it computes."""


class KernelList(TypedDict):
    """The whole of layers.json."""

    schema: int
    """Version of this format: 1."""
    compiler: str
    """Name and version of the compiler."""
    profiles: list[list[KernelRecord]]
    """The kernels for each optimisation profile, in the order in which they run."""
