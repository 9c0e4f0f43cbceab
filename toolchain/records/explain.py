"""Why a graph or an engine is not faster or not as accurate: the output of `toolchain explain --json`."""

from typing import NotRequired, TypedDict

from toolchain.records.bundle import LargeTensor
from toolchain.records.plan import EngineOptions, LayerCounts, ProfileRecord
from toolchain.records.quantization import ScaleRecord


class ExplainedGemm(TypedDict):
    """One GEMM of the graph."""

    name: str
    """Name of its node."""
    kind: str
    """`linear`, `attention`, `head`, or the operator type of an integer node of ONNX Runtime."""
    integers: bool
    """Whether both inputs are dequantized integers, so that a runtime may compute in integers."""
    tensorrt: bool
    """Whether both inputs are also int8 with zero point 0, as TensorRT requires."""
    on_this_cpu: bool
    """Whether the runtime computes it in integers on this CPU."""
    reason: str | None
    """Why one of the three is false; null if all are true."""
    macs: float
    """Its share of all multiply-accumulate operations, 0 to 1."""
    snr_db: float | None
    """Signal-to-noise ratio of its output against the reference, dB; null if they are equal or it has no reference."""


class MacShares(TypedDict):
    """Shares of the multiply-accumulate operations, 0 to 1."""

    integers: float
    """In GEMMs whose inputs are dequantized integers."""
    tensorrt: float
    """In GEMMs that TensorRT can run in INT8."""
    on_this_cpu: float
    """In GEMMs that the runtime computes in integers on this CPU."""


class ClippedTensor(TypedDict):
    """A tensor with values beyond the range in which it is quantized."""

    tensor: str
    """Name of the tensor."""
    share: float
    """Share of its values beyond the range, 0 to 1."""
    reach: float
    """Its largest value divided by the end of the range."""


class HalfTensor(LargeTensor):
    """A float16 tensor, and how much of float16's range it needs."""

    share: float
    """Largest magnitude over the rows / 65,504: above 1 it becomes infinite."""


class Float16Facts(TypedDict):
    """What float16 has to hold."""

    float16: list[HalfTensor]
    """Float16 tensors by their largest magnitude, the ten largest first; empty for a graph without float16."""
    large_sums: list[LargeTensor]
    """INT8 GEMMs whose integer sums exceed float16 before they are scaled, largest first."""


class ConversionCounts(TypedDict):
    """Nodes that move or convert numbers and compute nothing, by kind."""

    graph: dict[str, int]
    """In the graph: `quantize`, `dequantize`, `cast`, `transpose` or `reshape` -> number of nodes."""
    on_this_cpu: dict[str, int]
    """In what the runtime makes of the graph for this CPU."""


class SpeedUp(TypedDict):
    """The speed-up over FP32 on this CPU."""

    measured: float
    """Median time of FP32 divided by the median time of the artefact, on the same rows in turns."""
    products_share_of_fp32_time: float
    """Share of FP32's time that GEMMs take, 0 to 1."""
    integer_to_float_product_speed: float
    """How many times faster an integer GEMM of 512 x 512 x 512 is than a float one."""
    predicted_best: float
    """Speed-up by Amdahl's law if integer GEMMs run at that speed and nothing else changes.

    A graph for CPUs also computes fewer tokens in its last layer and has fewer nodes, so `measured` may be above it.
    """
    busy: NotRequired[bool]
    """Whether other processes slowed this machine meanwhile: the speeds are then not reliable."""


class ExplainRecord(Float16Facts):
    """The output of `toolchain explain --json` for a graph."""

    artefact: str
    """Path of the graph."""
    precision: str
    """Precision of the graph."""
    rows: str
    """The rows that were run, in words."""
    reference: str
    """The graph that it was compared with, in words."""
    products: list[ExplainedGemm]
    """Every GEMM, in graph order."""
    share_of_macs: MacShares
    """How much of the work is in integers."""
    not_finite: list[str]
    """Names of GEMMs whose output has NaN or infinity."""
    clipped: list[ClippedTensor]
    """Tensors that lose at least 0.0001 of their values, worst first."""
    scales: list[ScaleRecord]
    """Each quantized activation, with its measured amax and its scale in the graph, in graph order."""
    conversions: ConversionCounts
    """Nodes that only convert."""
    smoothing_muls: int
    """Mul nodes that SmoothQuant added."""
    speed: SpeedUp | None
    """The speed-up; null for FP32 itself and for a graph without a reference."""
    advice: list[str]
    """What to do, most important first."""


class ExplainedPlan(TypedDict):
    """The output of `toolchain explain --json` for an engine: its plan.json, with advice."""

    artefact: str
    """Path of the plan."""
    backend: str
    """Backend that runs the plan: `trt`, or `trt-rtx`."""
    precision: str
    """Precision of the plan."""
    gpu: str | None
    """Name of the GPU that it was built on; null if no GPU was needed."""
    sm: int
    """Compute capability without its point, such as 75."""
    tensorrt: str
    """Version of TensorRT, or of TensorRT-RTX."""
    layout: str
    """`padded`, or `packed` (without padding, by the plugin path)."""
    profiles: list[ProfileRecord]
    """Optimisation profiles."""
    options: EngineOptions
    """Options that it was built with."""
    layers: LayerCounts
    """Counts by the engine inspector, or over the compiler's list of kernels (TensorRT-RTX)."""
    missing_scales: int
    """Tensors for which TensorRT found no INT8 scale."""
    build_s: float
    """Duration of the build, seconds."""
    advice: list[str]
    """What to do, most important first."""
