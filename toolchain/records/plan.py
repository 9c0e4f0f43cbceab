"""plan.json: where a TensorRT plan runs, what it was built from, and the counts of its layers.

layers.json stands beside it and holds the JSON of TensorRT's engine inspector unchanged; its format is NVIDIA's.
"""

from typing import Literal, NotRequired, TypedDict


class GraphRecord(TypedDict):
    """The graph that an engine was built from."""

    file: str
    """Its name in the bundle, such as `model.int8.onnx`."""

    sha256: str
    """SHA-256 of the file, hexadecimal."""


class EngineOptions(TypedDict):
    """The options of `toolchain build` that change an engine and no graph."""

    calibrator: str
    """`own` or `tensorrt`: the source of the INT8 scales."""

    attention: str
    """`native` (TensorRT fuses attention itself) or `plugin`."""

    batch_size: str | None
    """Rows per batch as MIN,OPT,MAX or one number; null for the default."""

    seq_len: str | None
    """Tokens per row as MIN,OPT,MAX or one number; null for the default."""

    buckets: str | None
    """Largest length of each optimisation profile, in tokens, separated by commas; null for one profile."""

    workspace_mb: int | None
    """Memory that TensorRT may use for the workspace, in MiB; null for TensorRT's default."""

    optimization_level: int | None
    """TensorRT's builder optimisation level, 0 to 5; null for TensorRT's default."""

    version_compatible: bool
    """Whether later versions of TensorRT load the plan."""

    hardware_compatible: str
    """`none`, `same-compute-capability` or `ampere-plus`."""


class ProfileRecord(TypedDict):
    """One optimisation profile: the smallest, the best and the largest value of each dimension."""

    batch: list[int]
    """Rows per batch."""

    length: list[int]
    """Tokens per row."""


class EngineCalibration(TypedDict):
    """The source of the scales of an INT8 engine on the plugin path."""

    cache_sha256: NotRequired[str]
    """SHA-256 of the calibration cache that was given, hexadecimal."""

    samples: NotRequired[int]
    """Number of calibration rows."""

    data_sha256: NotRequired[str]
    """SHA-256 of the calibration rows, hexadecimal."""

    file: NotRequired[str]
    """`calibration.json`, if the scales come from it."""

    sha256: NotRequired[str | None]
    """SHA-256 of that file, hexadecimal."""


class LayerCounts(TypedDict):
    """Counts over the layers of an engine, from TensorRT's engine inspector.

    Every key but `layers` is null if the engine lists the names of its layers alone.
    """

    layers: int
    """Number of layers."""

    by_type: dict[str, int] | None
    """Type of layer to number of layers, most frequent first."""

    by_precision: dict[str, int] | None
    """Type of a layer's first output (`int8`, `fp8`, `fp16`, `bf16`, `fp32`, `int32`, `other`, `none`) to number of
    layers, most frequent first."""

    products: int | None
    """Number of layers that are GEMMs, convolutions or fused attention."""

    int8_products: int | None
    """Number of those that read int8 or run in an INT8 kernel."""

    unknown_products: int | None
    """Number of those whose types the inspector does not report."""

    fused_attention: int | None
    """Number of layers that are fused attention kernels."""

    reformats: int | None
    """Number of layers that only change the format of a tensor."""

    int8_names: list[str] | None
    """Names of up to ten of the layers counted in `int8_products`."""

    fp8_products: NotRequired[int]
    """Number of the GEMMs, convolutions and fused attentions that read FP8; only of an engine that has some."""


class PlanInputs(TypedDict):
    """The inputs of an engine and how rows are laid out in them."""

    layout: Literal["padded", "packed"]
    """`padded`: inputs of [batch, length]. `packed`: all tokens one after another, without padding."""

    inputs: list[str]
    """Names of the inputs, in order."""

    unfused_because: NotRequired[list[str]]
    """Reasons why TensorRT may not fuse attention, on the native path; empty if none is known."""

    not_as_asked: NotRequired[list[str]]
    """What the compiler did not do as the graph asks, such as a GEMM that is not in INT8; only of TensorRT-RTX."""

    plugins: NotRequired[dict[str, str]]
    """Name of each plugin to its version, on the plugin path."""


class PlanSource(TypedDict):
    """The choices and files that an engine is built from."""

    precision: str
    """`fp32`, `fp16`, `int8` or `fp8`."""

    graph: GraphRecord
    """The graph that the engine was built from."""

    options: EngineOptions
    """The options of the build."""

    profiles: list[ProfileRecord]
    """The optimisation profiles, shortest first."""

    calibration: EngineCalibration | None
    """The source of the scales; null unless the engine is INT8 on the plugin path."""


class PlanRecord(PlanSource, PlanInputs):
    """The whole of plan.json."""

    file: str
    """Path of the plan in the bundle."""

    schema: int
    """Version of this format: 1."""

    backend: NotRequired[str]
    """The backend that runs the plan: `trt` (TensorRT), or `trt-rtx` (TensorRT-RTX); `trt` if it is missing."""

    sm: int
    """Compute capability of the GPU that the plan was built for, as one number: 75 is 7.5."""

    tensorrt: str
    """Version of TensorRT, or of TensorRT-RTX, that built the plan."""

    gpu: str | None
    """Name of the GPU that built the plan; null if no GPU was needed."""

    cuda_driver: str | None
    """CUDA version that the driver of that GPU supports, such as 12.4; null without a GPU."""

    plan_sha256: str
    """SHA-256 of the plan, hexadecimal."""

    plan_bytes: int
    """Size of the plan, in bytes."""

    version_compatible: bool
    """Whether later versions of TensorRT load the plan."""

    versions: dict[str, str | None]
    """Name of a Python package to its version; null if it is not installed."""

    timing_cache_sha256: str | None
    """SHA-256 of TensorRT's timing cache after the build, hexadecimal; null without one."""

    layers: LayerCounts
    """Counts over the layers of the engine."""

    missing_scales: int
    """Number of tensors for which TensorRT logged that it has no scale."""

    warnings: list[str]
    """The first 20 warnings that TensorRT logged."""

    build_s: float
    """Time that the build took, in seconds."""

    created: str
    """Time of the build, ISO 8601, UTC."""


class RefusedRecord(TypedDict):
    """heard.json: the log of an engine that was refused after its build, below engines/build/.refused/."""

    gpu: str | None
    """Name of the GPU; null if no GPU was needed."""

    tag: str
    """Compute capability and version of TensorRT, in words."""

    layers: LayerCounts
    """Counts over the layers of the engine."""

    errors: list[str]
    """The errors that TensorRT logged, in order."""

    warnings: list[str]
    """The warnings that TensorRT logged, in order."""
