"""Why a graph or an engine is not faster or not more accurate: the output of `toolchain explain --json`."""

from typing import NotRequired, TypedDict

from toolchain.records.bundle import LargeTensor
from toolchain.records.plan import EngineOptions, LayerCounts, ProfileRecord
from toolchain.records.quantization import ScaleRecord


class ExplainedGemm(TypedDict):
    """One GEMM of the graph: whether it runs in 8 bits, its fraction of the work, and its error."""

    name: str
    """Name of the GEMM's node."""
    kind: str
    """`linear`, `attention`, `head`, or the operator type of a node of ONNX Runtime that computes in integers."""
    integers: bool
    """Whether both inputs come from DequantizeLinear, so that a runtime may compute the GEMM in 8 bits."""
    tensorrt: bool
    """Whether both inputs are also int8 with zero point 0, or FP8, as TensorRT requires."""
    on_this_cpu: bool
    """Whether the runtime computes the GEMM in integers on this CPU."""
    reason: str | None
    """Why `integers`, `tensorrt` or `on_this_cpu` is false; null if all three are true."""
    macs: float
    """Fraction of the graph's multiply-accumulate operations that are in this GEMM, 0 to 1."""
    snr_db: float | None
    """Signal-to-noise ratio of the GEMM's output against the same output in the reference graph, dB; null if the two
    are equal or the reference lacks it."""


class MacShares(TypedDict):
    """Fractions of the graph's multiply-accumulate operations, 0 to 1, that may run in 8 bits."""

    integers: float
    """Fraction in GEMMs whose inputs both come from DequantizeLinear."""
    tensorrt: float
    """Fraction in GEMMs that TensorRT can run in INT8 or FP8."""
    on_this_cpu: float
    """Fraction in GEMMs that the runtime computes in integers on this CPU."""


class ClippedTensor(TypedDict):
    """A quantized tensor with values outside its quantization range, which are clipped."""

    tensor: str
    """Name of the tensor."""
    share: float
    """Fraction of the tensor's values that are outside the range, 0 to 1."""
    reach: float
    """Farthest value outside the range, divided by the end of the range on its side. 2 means twice as large as the
    range allows."""


class HalfTensor(LargeTensor):
    """A float16 tensor, and its largest value compared with float16's maximum."""

    share: float
    """Largest absolute value over the rows, divided by float16's maximum of 65,504. Above 1, it becomes infinite in
    float16."""


class Float16Facts(TypedDict):
    """The largest values that a graph computes or stores in float16."""

    float16: list[HalfTensor]
    """The ten float16 tensors with the largest absolute values, largest first; empty if the graph has no float16
    tensors."""
    large_sums: list[LargeTensor]
    """INT8 GEMMs whose integer sums exceed float16's maximum before they are scaled, largest first."""


class ConversionCounts(TypedDict):
    """Number of nodes that only convert or move numbers."""

    graph: dict[str, int]
    """In the graph as stored: `quantize`, `dequantize`, `cast`, `transpose` or `reshape` -> number of nodes."""
    on_this_cpu: dict[str, int]
    """The same counts in the graph as the runtime optimised it for this CPU."""


class SpeedUp(TypedDict):
    """The speed-up of the graph over the FP32 graph on this CPU, measured and predicted."""

    measured: float
    """Median time of the FP32 graph divided by that of this graph. The two took turns on the same rows."""
    products_share_of_fp32_time: float
    """Fraction of the FP32 graph's time that is spent in GEMMs, 0 to 1."""
    integer_to_float_product_speed: float
    """Speed of an integer GEMM of size 512 x 512 x 512 divided by that of a float32 GEMM of the same size."""
    predicted_best: float
    """Speed-up by Amdahl's law if integer GEMMs are faster by `integer_to_float_product_speed` and nothing else
    changes.

    `measured` may be higher, because a graph for CPUs also computes fewer tokens in its last layer and has fewer nodes.
    """
    busy: NotRequired[bool]
    """Whether other processes slowed this machine down during the measurement, so that the figures are not reliable."""


class ExplainRecord(Float16Facts):
    """What `toolchain explain --json` prints for a graph."""

    artefact: str
    """Path of the graph."""
    precision: str
    """Precision of the graph."""
    rows: str
    """Which rows were run, in words."""
    reference: str
    """The graph that this graph was compared with, in words."""
    products: list[ExplainedGemm]
    """Every GEMM of the graph, in graph order."""
    share_of_macs: MacShares
    """Fractions of the multiply-accumulate operations that may run in 8 bits."""
    not_finite: list[str]
    """Names of the GEMMs whose output has NaN or infinity; such a graph must not be used."""
    clipped: list[ClippedTensor]
    """Tensors with at least 0.01 % of their values outside their quantization range, worst first."""
    scales: list[ScaleRecord]
    """Each quantized activation, with its measured amax and the scale in the graph, in graph order."""
    conversions: ConversionCounts
    """Number of nodes that only convert or move numbers."""
    smoothing_muls: int
    """Number of Mul nodes that SmoothQuant added."""
    speed: SpeedUp | None
    """Speed-up over the FP32 graph; null if it cannot be measured: for the FP32 graph itself, for FP8, or without a
    reference graph."""
    advice: list[str]
    """What to do next, the most important first."""


class ExplainedPlan(TypedDict):
    """What `toolchain explain --json` prints for an engine: parts of its plan.json, and advice."""

    artefact: str
    """Path of the plan."""
    backend: str
    """Backend that runs the plan: `trt`, or `trt-rtx`."""
    precision: str
    """Precision of the plan."""
    gpu: str | None
    """Name of the GPU that the plan was built on; null if it was built without a GPU."""
    sm: int
    """Compute capability that the plan is for, times ten: 75 for 7.5."""
    tensorrt: str
    """Version of TensorRT, or of TensorRT-RTX, that built the plan."""
    layout: str
    """`padded`: rows are padded to one length; `packed`: the tokens of all rows follow each other without padding
    (plugin path)."""
    profiles: list[ProfileRecord]
    """The optimisation profiles of the plan."""
    options: EngineOptions
    """Options that the plan was built with."""
    layers: LayerCounts
    """Number of layers by type and precision, from TensorRT's engine inspector or from TensorRT-RTX's list of
    kernels."""
    missing_scales: int
    """Number of tensors for which TensorRT logged that no INT8 scale is known."""
    build_s: float
    """Time that the build took, in seconds."""
    advice: list[str]
    """What to do next, the most important first."""
