"""The records of quantization that `bundle.json`, `explain` and `tune` hold: graphs, GEMMs and their error."""

from typing import NotRequired, TypedDict


class TensorRecord(TypedDict):
    """One input or output of a graph."""

    name: str
    """Its name."""

    dtype: str
    """Its element type, in lower case, such as `int32`."""

    shape: list[int | str]
    """Its dimensions; a dynamic one is a name, such as `batch`."""


class ExportRecord(TypedDict):
    """The export of a checkpoint to model.onnx."""

    opset: int
    """Version of ONNX's operator set."""

    inputs: list[TensorRecord]
    """The graph's inputs, in order."""

    outputs: list[TensorRecord]
    """The graph's outputs, in order."""

    nodes: int
    """Number of nodes."""

    passes: dict[str, int]
    """Name of each cleaning pass to the number of places that it changed."""


class QuantizedRecord(TypedDict):
    """One quantized graph."""

    target: str
    """`tensorrt` or `cpu`."""

    linear: int
    """Number of linear layers in INT8."""

    attention: int
    """Number of attention GEMMs (of two activations) in INT8."""

    kept: list[str]
    """Names of the GEMMs that stay in higher precision, sorted."""

    smoothing_muls: NotRequired[int]
    """Number of Mul nodes that SmoothQuant added."""

    float16_nodes: NotRequired[int]
    """Number of nodes that compute in float16 (model.int8.onnx)."""

    passes: NotRequired[dict[str, int]]
    """Name of each pass for ONNX Runtime on a CPU to the number of nodes that it changed (model.int8.cpu.onnx)."""


class CoverageRecord(TypedDict):
    """Whether one GEMM of a graph is in integers."""

    name: str
    """Name of the node."""

    kind: str
    """`linear`, `attention`, `head`, or the type of an integer operator of ONNX Runtime."""

    integers: bool
    """Whether both inputs come from DequantizeLinear, so that a runtime may compute in integers."""

    tensorrt: bool
    """Whether both inputs are also int8 with zero point 0, as TensorRT needs."""

    reason: str | None
    """Why it is not in integers everywhere; null if it is."""


class SensitivityRecord(TypedDict):
    """The error that one GEMM of the encoder makes in INT8."""

    name: str
    """Name of the node."""

    kind: str
    """`linear` or `attention`."""

    macs: float
    """Its share of all multiply-accumulates of the encoder, 0 to 1."""

    snr_db: float
    """Signal-to-noise ratio at its own output, in dB, when it alone is in INT8 and reads FP32 inputs."""

    effect: float | None
    """Distance of the logits from the FP32 logits when it alone is in INT8; null if not measured."""

    drop_points: float | None
    """Expected drop of the task's metric when it alone is in INT8, in points (1/100); null if not measured."""
