"""plan.json: which GPU and TensorRT version a plan is for, what it was built from, and the counts of its layers.

layers.json beside it has the output of TensorRT's engine inspector unchanged, in NVIDIA's format. For TensorRT-RTX, see
kernels.py. A GEMM layer here is one that computes a GEMM, a convolution or fused attention.
"""

from typing import Literal, NotRequired, TypedDict


class GraphRecord(TypedDict):
    """The graph that an engine was built from."""

    file: str
    """File name of the graph in the bundle, such as `model.int8.onnx`."""

    sha256: str
    """SHA-256 of the file, hexadecimal."""


class EngineOptions(TypedDict):
    """The options of `toolchain build` that affect an engine but not the ONNX graphs."""

    calibrator: str
    """Source of the INT8 scales on the plugin path: `own` (calibration.json) or `tensorrt` (TensorRT's entropy
    calibrator)."""

    attention: str
    """`native`: TensorRT fuses attention itself; `plugin`: attention is computed by TensorRT's plugins."""

    batch_size: str | None
    """Rows per batch, as MIN,OPT,MAX or one number; null for the default."""

    seq_len: str | None
    """Tokens per row, as MIN,OPT,MAX or one number; null for the default."""

    buckets: str | None
    """Largest number of tokens per row of each optimisation profile, separated by commas; null for a single profile."""

    workspace_mb: int | None
    """Largest workspace that TensorRT may use, in MiB; null for TensorRT's default."""

    optimization_level: int | None
    """TensorRT's builder optimisation level, 0 to 5; null for TensorRT's default."""

    version_compatible: bool
    """Whether later versions of TensorRT can load the plan."""

    hardware_compatible: str
    """On which other GPUs the plan can run: `none`, `same-compute-capability` or `ampere-plus`."""


class ProfileRecord(TypedDict):
    """One optimisation profile: minimum, optimum and maximum of each dynamic dimension."""

    batch: list[int]
    """Rows per batch: [minimum, optimum, maximum]."""

    length: list[int]
    """Tokens per row: [minimum, optimum, maximum]."""


class EngineCalibration(TypedDict):
    """Where the scales of an INT8 engine on the plugin path come from: a calibration cache, or calibration.json."""

    cache_sha256: NotRequired[str]
    """SHA-256 of the calibration cache that was given with `--calibration`, hexadecimal."""

    samples: NotRequired[int]
    """Number of calibration rows."""

    data_sha256: NotRequired[str]
    """SHA-256 of the calibration rows' texts and labels, hexadecimal."""

    file: NotRequired[str]
    """`calibration.json`, if the scales come from that file."""

    sha256: NotRequired[str | None]
    """SHA-256 of calibration.json, hexadecimal."""


class LayerCounts(TypedDict):
    """Counts of an engine's layers, from TensorRT's engine inspector or from TensorRT-RTX's list of kernels.

    Every key but `layers` is null if the engine was built so that it lists only the names of its layers.
    """

    layers: int
    """Number of layers in the engine."""

    by_type: dict[str, int] | None
    """Type of layer -> number of layers, most frequent first."""

    by_precision: dict[str, int] | None
    """Datatype of a layer's first output (`int8`, `fp8`, `fp16`, `bf16`, `fp32`, `int32`, `other`, `none`) -> number of
    layers, most frequent first."""

    products: int | None
    """Number of GEMM layers: GEMMs, convolutions and fused attention."""

    int8_products: int | None
    """Number of GEMM layers that read int8 or run in an INT8 kernel."""

    unknown_products: int | None
    """Number of GEMM layers whose datatypes the inspector does not report."""

    fused_attention: int | None
    """Number of layers that are fused attention kernels."""

    reformats: int | None
    """Number of layers that only change the format or datatype of a tensor."""

    int8_names: list[str] | None
    """Names of the first ten layers that are counted in `int8_products`."""

    fp8_products: NotRequired[int]
    """Number of GEMM layers that read FP8; absent if there are none."""


class PlanInputs(TypedDict):
    """The inputs of an engine, and how rows are arranged in them."""

    layout: Literal["padded", "packed"]
    """`padded`: inputs have the shape [rows, tokens]; `packed`: the tokens of all rows follow each other without
    padding."""

    inputs: list[str]
    """Names of the engine's inputs, in their order."""

    unfused_because: NotRequired[list[str]]
    """Reasons why TensorRT may not fuse attention; empty if none is known. Only on the native path."""

    not_as_asked: NotRequired[list[str]]
    """Differences between what the graph asks for and what the compiler made, in words, such as a GEMM that is not in
    INT8. Only for TensorRT-RTX."""

    plugins: NotRequired[dict[str, str]]
    """Name of a plugin -> its version. Only on the plugin path."""


class PlanSource(TypedDict):
    """What an engine is built from: the graph, the options, and the source of the scales."""

    precision: str
    """Precision of the engine: `fp32`, `fp16`, `int8` or `fp8`."""

    graph: GraphRecord
    """The graph that the engine was built from."""

    options: EngineOptions
    """Options that the engine was built with."""

    profiles: list[ProfileRecord]
    """The optimisation profiles, the one with the shortest rows first."""

    calibration: EngineCalibration | None
    """Source of the INT8 scales; null unless the engine is INT8 on the plugin path."""


class PlanRecord(PlanSource, PlanInputs):
    """The content of plan.json."""

    file: str
    """Path of the plan in the bundle."""

    schema: int
    """Version of this format: 1."""

    backend: NotRequired[str]
    """Backend that runs the plan: `trt` (TensorRT) or `trt-rtx` (TensorRT-RTX). If it is absent, `trt`."""

    sm: int
    """Compute capability of the GPU that the plan was built for, times ten: 75 for 7.5."""

    tensorrt: str
    """Version of TensorRT, or of TensorRT-RTX, that built the plan."""

    gpu: str | None
    """Name of the GPU that the plan was built on; null if it was built without a GPU."""

    cuda_driver: str | None
    """CUDA version that the GPU's driver supports, such as 12.4; null if the plan was built without a GPU."""

    plan_sha256: str
    """SHA-256 of the plan, hexadecimal."""

    plan_bytes: int
    """Size of the plan, in bytes."""

    version_compatible: bool
    """Whether later versions of TensorRT can load the plan."""

    versions: dict[str, str | None]
    """Name of a Python package -> its version at the time of the build; null if it was not installed."""

    timing_cache_sha256: str | None
    """SHA-256 of TensorRT's timing cache after the build, hexadecimal; null if none was used."""

    layers: LayerCounts
    """Counts of the engine's layers by type and precision."""

    missing_scales: int
    """Number of tensors for which TensorRT logged that no INT8 scale is known."""

    warnings: list[str]
    """The first 20 warnings that TensorRT logged."""

    build_s: float
    """Time that the build took, in seconds."""

    created: str
    """Time at which the build ended, ISO 8601, UTC."""


class RefusedRecord(TypedDict):
    """heard.json: TensorRT's log of an engine that this toolchain refused after the build.

    It lies below engines/build/.refused/. Attach it to a bug report.
    """

    gpu: str | None
    """Name of the GPU that the engine was built on; null if it was built without a GPU."""

    tag: str
    """Compute capability and TensorRT version in words: `compute capability 7.5 with TensorRT 10.16.1.11`."""

    layers: LayerCounts
    """Counts of the engine's layers by type and precision."""

    errors: list[str]
    """The errors that TensorRT logged, in order."""

    warnings: list[str]
    """The warnings that TensorRT logged, in order."""
