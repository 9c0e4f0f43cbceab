"""Records of single GEMMs, as `explain` and `tune` print them, and the saved state of a mixed-precision search."""

from typing import TypedDict

from toolchain.records.calibration import DistanceRecord


class CoverageRecord(TypedDict):
    """Whether a runtime can compute one GEMM of a graph in 8 bits."""

    name: str
    """Name of the GEMM's node."""

    kind: str
    """`linear`, `attention`, `head`, or the type of a node of ONNX Runtime that computes in integers."""

    integers: bool
    """Whether both inputs come from DequantizeLinear, so that a runtime may compute the GEMM in 8 bits."""

    tensorrt: bool
    """Whether both inputs are also int8 with zero point 0, or FP8, as TensorRT requires."""

    reason: str | None
    """Why `integers` or `tensorrt` is false; null if both are true."""


class ScaleRecord(TypedDict):
    """The calibrated amax of one quantized activation, and its scale in the graph."""

    tensor: str
    """Name of the activation tensor, before it is quantized."""

    amax: float | None
    """The amax in calibration.json (the absolute value that maps to 127); null if that file lacks the tensor, as for
    attention probabilities."""

    scale: float
    """The scale in the graph. In model.int8.onnx it is amax / 127, rounded to float16; a graph with uint8 activations
    has another scale."""


class SensitivityRecord(TypedDict):
    """The error that one GEMM of the encoder causes when it is quantized to INT8."""

    name: str
    """Name of the GEMM's node."""

    kind: str
    """`linear` or `attention`."""

    macs: float
    """Fraction of the encoder's multiply-accumulate operations that are in this GEMM, 0 to 1."""

    snr_db: float
    """Signal-to-noise ratio of the GEMM's output, dB, when only this GEMM is in INT8 and its inputs are exact."""

    effect: float | None
    """Distance of the logits from the FP32 logits when only this GEMM is in INT8; null if it was not measured."""

    drop_points: float | None
    """Expected drop of the task's metric when only this GEMM is in INT8, in points (1/100); null if it was not
    measured."""


class SearchRecord(TypedDict, total=False):
    """search-*.json: the saved evaluations of a mixed-precision search. An interrupted search resumes from them."""

    noise: list[SensitivityRecord]
    """Each GEMM of the encoder, with the error that it causes in INT8."""

    evaluations: dict[str, DistanceRecord]
    """Description of a graph that was evaluated, such as `alone: NAME` (only this GEMM is in INT8) -> its distance from
    FP32."""
