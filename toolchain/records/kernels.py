"""The kernels that TensorRT-RTX's compiler generates for a graph: layers.json beside a plan, and `explain --target`.

A bound is the shortest time that a kernel can take on a GPU: at the peaks of the GPU's data sheet, its memory traffic
or its operations take at least that long.
"""

from typing import Literal, NotRequired, TypedDict

KernelKind = Literal["gemm", "attention", "convolution", "elementwise", "copy", "other"]


class TensorRecord(TypedDict):
    """A tensor that a kernel reads or writes."""

    name: str
    """Name of the tensor in the ONNX graph, or the compiler's name if it is not in that graph."""
    dimensions: list[int]
    """Dimensions of the tensor; -1 for a dimension that varies within the optimisation profile."""
    datatype: str
    """`int4`, `int8`, `fp8`, `fp16`, `bf16`, `fp32`, `int32`, `int64` or `bool`; for other types, the compiler's
    name."""


class KernelRecord(TypedDict):
    """One kernel: what it computes, its tensors, and its work."""

    name: str
    """The compiler's name for the kernel. For a GEMM it lists the ONNX nodes; for a fused kernel, the operations, each
    cut to four letters."""
    kind: KernelKind
    """`gemm`; `attention` (one fused kernel); `convolution`; `copy`: only moves or converts numbers; `elementwise`:
    computes anything else; `other`: a type of layer that this toolchain does not know."""
    inputs: list[TensorRecord]
    """Activations that the kernel reads."""
    constants: list[TensorRecord]
    """Weights and other constants that the kernel reads."""
    outputs: list[TensorRecord]
    """Activations that the kernel writes."""
    precision: str | None
    """Datatype in which the kernel multiplies matrices: the wider of its operands' datatypes, so `int8` only if both
    operands are int8. Null if it multiplies no matrices, or if the compiler does not list its operands."""
    bytes: int | None
    """Bytes that the kernel reads and writes; for an embedding table, only the rows that are looked up. Null if a
    dimension varies."""
    operations: int | None
    """Number of multiplications and additions in its GEMMs, 0 without a GEMM; null if a dimension varies."""
    nodes: list[str]
    """Names of the ONNX nodes that the kernel computes, entirely or in part."""


class BoundedKernel(KernelRecord):
    """One kernel, with the shortest time that it can take on a GPU."""

    part: str
    """Part of the encoder that the kernel belongs to: `embedding`, `attention`, `feed_forward`, `head` or `other`."""
    layer: int | None
    """Index of the encoder layer, from 0; null for kernels outside the layers."""
    us: float
    """Lower bound of the kernel's time, microseconds: the time of its memory traffic or of its operations at the GPU's
    peaks, whichever is longer."""
    bound: Literal["compute", "memory"]
    """What determines the bound: the operations (`compute`) or the memory traffic (`memory`)."""


class KernelGroup(TypedDict):
    """All kernels of one kind in one part of the encoder, added up."""

    part: str
    """Part of the encoder: `embedding`, `attention`, `feed_forward`, `head` or `other`."""
    kind: KernelKind
    """Kind of the kernels, as in `KernelRecord`."""
    kernels: int
    """Number of kernels."""
    bytes: int
    """Bytes that the kernels read and write."""
    operations: int
    """Number of multiplications and additions in the GEMMs of these kernels."""
    us: float
    """Lower bound of the total time of these kernels, microseconds."""
    bound: Literal["compute", "memory"]
    """What bounds more than half of the time in `us`: operations (`compute`) or memory traffic (`memory`)."""


class CompiledGraph(TypedDict):
    """A graph as TensorRT-RTX compiles it for one GPU and one shape."""

    artefact: str
    """File name of the graph in the bundle; `made of model.onnx` if the bundle has no graph in this precision."""
    precision: str
    """Precision of the graph: `fp16`, `int8` or `fp8`."""
    made_from: NotRequired[dict[str, str]]
    """Name of a file of the bundle that the graph was compiled from -> its SHA-256. If the file has another digest now,
    this record is out of date."""
    kernels: list[BoundedKernel]
    """The kernels, in the order in which they run."""
    groups: list[KernelGroup]
    """The kernels, added up by part of the encoder and kind."""
    bytes: int
    """Bytes that all kernels read and write."""
    us: float
    """Lower bound of the time of one batch, microseconds: the sum of the bounds of its kernels."""
    not_as_asked: list[str]
    """Differences between what the graph asks for and what the compiler made, in words, such as a GEMM that is not in
    INT8."""


class ExplainedTarget(TypedDict):
    """What `toolchain explain --target` prints; the bundle also keeps it in `results/kernels/TARGET.json`."""

    bundle: str
    """Path of the bundle."""
    target: str
    """The GPU that was compiled for, as named with `--target`, such as `t4`."""
    sm: int
    """Compute capability of the target times ten: 75 for 7.5."""
    gpu: str
    """Name of the GPU whose data sheet the bounds are computed from."""
    source: str
    """Title of the data sheet that the bounds are computed from."""
    compiler: str
    """Name and version of the compiler."""
    batch: int
    """Number of rows in the batch."""
    length: int
    """Number of tokens in each row."""
    graphs: list[CompiledGraph]
    """The FP16 graph, then the INT8 or FP8 graph; only the FP16 graph if the bundle has no graph in 8 bits."""
    answer: str
    """What limits the speed of the graph in 8 bits, in one sentence; without such a graph, how to build it."""
    created: str
    """Time of the compilation, ISO 8601, UTC."""


class SavedExplainedTarget(ExplainedTarget):
    """What `toolchain explain --target` saved in a bundle, with the path of that file."""

    file: str
    """Path of the file that the record was read from; not in the file itself."""


class KernelList(TypedDict):
    """The content of layers.json beside a plan of TensorRT-RTX."""

    schema: int
    """Version of this format: 1."""
    compiler: str
    """Name and version of the compiler."""
    profiles: list[list[KernelRecord]]
    """For each optimisation profile, the kernels in the order in which they run."""
