"""calibration.json: the calibration range of each quantized tensor, and how the ranges were chosen.

calibration.cache.json lies beside a TensorRT calibration cache (calibration.cache) and says what the cache was made
from. Hold-out rows are train rows that were not used for calibration; methods are compared on them.
"""

from typing import Literal, NotRequired, TypedDict


class RangeRecord(TypedDict):
    """The calibration range of one tensor, in the units of the tensor."""

    amax: float
    """The absolute value that maps to 127 in symmetric int8, as the range method chose it, unrounded."""

    min: float
    """Smallest value on the calibration rows, but not below -amax; for asymmetric uint8."""

    max: float
    """Largest value on the calibration rows, but not above amax; for asymmetric uint8."""

    scale: NotRequired[float]
    """The scale in model.int8.onnx: amax / 127, rounded to float16. Absent in files of earlier versions."""


class DistanceRecord(TypedDict):
    """The distance of a graph's logits from the FP32 logits on the hold-out rows."""

    kl: float | None
    """Mean KL divergence of the class probabilities, in nats; null if the logits are not turned into probabilities, as
    for a regression."""

    rms: float
    """Root mean square of the logit differences, in the units of the logits."""

    changed: float | None
    """Fraction of the rows whose predicted label differs, 0 to 1. For rows with several labels or tags: the drop of the
    main metric, taking FP32's predictions as the truth. Null if there are no labels, as for a regression."""


class TrialRecord(DistanceRecord):
    """One combination of range method and smoothing that `--calib-method auto` tried, with its distance."""

    method: str
    """Range method, such as `entropy`."""

    smooth: float | None
    """SmoothQuant's alpha, 0 to 1; null without smoothing."""

    rows: NotRequired[int]
    """Number of hold-out rows that the distance was measured on. A trial stops early once it cannot become the nearest
    to FP32. Absent in files of earlier versions, which used all rows."""


class KeptRecord(DistanceRecord):
    """A set of GEMMs that is excluded from INT8, with the distance from FP32 that remains."""

    keep: list[str]
    """Names of the GEMMs that stay in higher precision."""

    macs: float
    """Fraction of the encoder's multiply-accumulate operations that are in the GEMMs in `keep`, 0 to 1."""

    expected_drop_points: float
    """Expected drop of the task's metric when the GEMMs in `keep` are excluded from INT8, in points (1/100)."""


class ChosenOnRecord(TypedDict):
    """The hold-out rows on which `--calib-method auto` compared the methods."""

    rows: int
    """Number of rows."""

    data_sha256: str
    """SHA-256 of the rows' texts and labels, hexadecimal."""


class OverlapRecord(TypedDict):
    """Rows whose text is in both the train split and the split to evaluate."""

    train_rows: int
    """Number of rows of the train split, or of `--calib-data`."""

    left_out: int
    """Number of train rows whose text is also in the split to evaluate. They are used neither for calibration nor as
    hold-out rows."""

    evaluated_rows: int
    """Number of rows of the split to evaluate."""

    evaluated_in_train: int
    """Number of rows of the split to evaluate whose text is also in the train split. A model trained on that split has
    seen them, so that its metric may be too high."""


class CalibrationSummary(TypedDict):
    """How the ranges were made: the part that calibration.json and bundle.json share."""

    method: str
    """Range method, such as `entropy`; with `--calib-method auto`, the method that was chosen."""

    smooth: float | None
    """SmoothQuant's alpha, 0 to 1; null without smoothing."""

    samples: int
    """Number of calibration rows."""

    data_sha256: str
    """SHA-256 of the calibration rows' texts and labels, hexadecimal."""

    graph_sha256: str
    """SHA-256 of the model.onnx for which the ranges were made, hexadecimal."""

    overlap: NotRequired[OverlapRecord]
    """Numbers of rows that are both in the train split and in the split to evaluate; absent if there are none."""

    max_drop: NotRequired[float | None]
    """Largest drop that the gate allows (`--max-drop`), in points (1/100); null without a gate. Only with
    `--calib-method auto`."""

    chosen_on: NotRequired[ChosenOnRecord]
    """The hold-out rows on which the methods were compared. Only with `--calib-method auto`."""

    trials: NotRequired[list[TrialRecord]]
    """Every combination that `--calib-method auto` tried, the nearest to FP32 first."""

    keep: NotRequired[list[str]]
    """Names of the GEMMs to exclude from INT8, so that the expected drop stays within `max_drop`; absent if no
    GEMM has to be excluded."""

    kept: NotRequired[KeptRecord]
    """The expected drop and the distance from FP32 when the GEMMs in `keep` are excluded from INT8."""

    residual: NotRequired[Literal["int8"]]
    """Present if residual additions read INT8 inputs in the graph for TensorRT, because the expected drop then stays
    within `max_drop`."""

    residual_drop_points: NotRequired[float]
    """Expected drop of the task's metric when residual additions read INT8, in points (1/100)."""


class CalibrationAbout(CalibrationSummary):
    """How the ranges were made, with the digest of each row that was used."""

    row_sha256: NotRequired[list[str]]
    """First 16 hexadecimal digits of the SHA-256 of each calibration row's text (lower case, single spaces), sorted,
    without duplicates. `eval` refuses a split that contains one of these rows."""

    chosen_sha256: NotRequired[list[str]]
    """First 16 hexadecimal digits of the SHA-256 of each hold-out row's text, sorted, without duplicates."""


class CalibrationRecord(CalibrationAbout):
    """The content of calibration.json."""

    smoothing: dict[str, str]
    """Name of a smoothed LayerNorm or linear layer -> the smoothing factor of each channel, as integers separated by
    spaces: an integer n stands for the factor 2^(n/8)."""

    ranges: dict[str, RangeRecord]
    """Name of a tensor -> its calibration range."""


class CacheOrigin(TypedDict):
    """What a calibration cache was made from. A build uses the cache for an engine only if all of this matches."""

    tensorrt: str
    """Version of TensorRT that reads the cache."""

    model_sha256: str
    """SHA-256 of model.onnx, hexadecimal."""

    tokenizer_sha256: str
    """SHA-256 of the list of digests of the tokenizer's files, hexadecimal."""

    max_length: int
    """Number of tokens to which rows were truncated."""

    tensors_sha256: str
    """SHA-256 of the list of tensors that need a scale in the cache, hexadecimal."""


class CalibratorRows(TypedDict):
    """The rows on which TensorRT's own entropy calibrator ran."""

    rows: int
    """Number of rows."""

    batches: int
    """Number of batches."""

    shape: list[int]
    """Shape of each batch: [rows, tokens]."""

    data_sha256: str
    """SHA-256 of the rows' texts and labels, hexadecimal."""

    missing_scales: int
    """Number of tensors for which TensorRT logged that no scale is known."""


class OwnCacheRecord(CacheOrigin):
    """calibration.cache.json of a cache that was written from the ranges in calibration.json."""

    calibrator: Literal["own"]
    """`own`: the scales come from calibration.json."""

    calibration_sha256: str
    """SHA-256 of calibration.json, hexadecimal."""

    cache_sha256: str
    """SHA-256 of the content of the cache, hexadecimal."""


class TensorrtCacheRecord(CacheOrigin, CalibratorRows):
    """calibration.cache.json of a cache that TensorRT's own entropy calibrator wrote."""

    calibrator: Literal["tensorrt"]
    """`tensorrt`: the scales come from TensorRT's entropy calibrator."""

    cache_sha256: str
    """SHA-256 of the content of the cache, hexadecimal."""


CacheRecord = OwnCacheRecord | TensorrtCacheRecord
