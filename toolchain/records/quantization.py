"""Records of single GEMMs, which `explain` and `tune` print, and the evaluations of a mixed-precision search."""

from typing import TypedDict

from toolchain.records.calibration import DistanceRecord


class CoverageRecord(TypedDict):
    """Whether one GEMM of a graph is in integers."""

    name: str
    """Name of the node."""

    kind: str
    """`linear`, `attention`, `head`, or the type of an integer operator of ONNX Runtime."""

    integers: bool
    """Whether both inputs come from DequantizeLinear, so that a runtime may compute in integers."""

    tensorrt: bool
    """Whether both inputs are also int8 with zero point 0, or FP8, as TensorRT needs."""

    reason: str | None
    """Why it is not in integers everywhere; null if it is."""


class ScaleRecord(TypedDict):
    """The calibrated amax of one quantized activation, and the scale that the graph holds for it."""

    tensor: str
    """Name of the activation, before quantization."""

    amax: float | None
    """The measured amax of calibration.json; null if there is none, as for attention probabilities."""

    scale: float
    """The scale in the graph: amax / 127 rounded to float16 in model.int8.onnx; another one where uint8 is used."""


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


class SearchRecord(TypedDict, total=False):
    """search-*.json: the evaluations of a mixed-precision search, by which a stopped one goes on."""

    noise: list[SensitivityRecord]
    """The GEMMs of the graph and their noise."""

    evaluations: dict[str, DistanceRecord]
    """The graph that was evaluated, in words, to its distance from FP32."""
