"""The kernels that NVIDIA's compiler makes of a graph: layers.json beside a plan of TensorRT-RTX."""

from typing import Literal, NotRequired, TypedDict

KernelKind = Literal["gemm", "attention", "convolution", "elementwise", "copy", "other"]


class TensorRecord(TypedDict):
    """A tensor that a kernel reads or writes."""

    name: str
    """The compiler's name; that of the ONNX tensor or initializer where there is one."""
    dimensions: list[int]
    """Its size; -1 where it varies between the shapes of the optimisation profile."""
    datatype: str
    """`int8`, `fp8`, `fp16`, `bf16`, `fp32`, `int32`, `int64`, `bool`, or the compiler's own name of another type."""


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


class BoundedKernel(KernelRecord):
    """One kernel with the least time that it takes on a GPU."""

    part: str
    """Part of the encoder: `embedding`, `attention`, `feed_forward`, `head`, or `other`."""
    layer: int | None
    """Number of the encoder layer, from 0; null outside the layers."""
    us: float
    """Lower bound of its time, microseconds: the longer of its bytes and its operations at the GPU's peaks."""
    bound: Literal["compute", "memory"]
    """What takes longer at the peaks."""


class KernelGroup(TypedDict):
    """The kernels of one kind in one part of the encoder."""

    part: str
    """Part of the encoder."""
    kind: KernelKind
    """Kind of the kernels."""
    kernels: int
    """Number of kernels."""
    bytes: int
    """Bytes that they read and write."""
    operations: int
    """Multiplications and additions of their GEMMs."""
    us: float
    """Lower bound of their time, microseconds."""
    bound: Literal["compute", "memory"]
    """What bounds the larger part of that time."""


class CompiledGraph(TypedDict):
    """A graph as TensorRT-RTX compiles it for one GPU and one shape."""

    artefact: str
    """The graph's name in the bundle; `made of model.onnx` where the bundle lacks a graph of this precision."""
    precision: str
    """`fp16`, `int8` or `fp8`."""
    made_from: NotRequired[dict[str, str]]
    """File of the bundle that the graph is, or was made of -> its SHA-256. If the bundle has another now, the record is
    out of date."""
    kernels: list[BoundedKernel]
    """The kernels, in the order in which they run."""
    groups: list[KernelGroup]
    """The kernels by part and kind."""
    bytes: int
    """Bytes that all kernels read and write."""
    us: float
    """Lower bound of the time of a batch, microseconds: the sum over the kernels."""
    not_as_asked: list[str]
    """What the compiler did not do as the graph asks, such as a GEMM that is not in INT8."""


class ExplainedTarget(TypedDict):
    """What `toolchain explain --target` prints; a bundle keeps it as `results/kernels/TARGET.json`."""

    bundle: str
    """Path of the bundle."""
    target: str
    """The target, such as `t4`."""
    sm: int
    """Its compute capability, times ten."""
    gpu: str
    """Name of the GPU whose data sheet gives the bounds."""
    source: str
    """That data sheet."""
    compiler: str
    """Name and version of the compiler."""
    batch: int
    """Rows in the batch."""
    length: int
    """Tokens of each row."""
    graphs: list[CompiledGraph]
    """FP16 first, then INT8; one of them where the bundle has no INT8 graph."""
    answer: str
    """Why INT8 is not faster than it is, in one sentence."""
    created: str
    """Time of the compilation, ISO 8601, UTC."""


class SavedExplainedTarget(ExplainedTarget):
    """The record, with the path that it was read from."""

    file: str
    """Path of the record."""


class KernelList(TypedDict):
    """The whole of layers.json."""

    schema: int
    """Version of this format: 1."""
    compiler: str
    """Name and version of the compiler."""
    profiles: list[list[KernelRecord]]
    """The kernels for each optimisation profile, in the order in which they run."""
