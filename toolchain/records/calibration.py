"""calibration.json: the calibration range of each quantized tensor, and how the ranges were chosen.

calibration.cache.json stands beside a TensorRT calibration cache and says what the cache was made from.
"""

from typing import Literal, NotRequired, TypedDict


class RangeRecord(TypedDict):
    """The calibration range of one tensor, in the units of the tensor."""

    amax: float
    """The |x| that maps to 127 in symmetric int8, as the range method chose it. It is not rounded."""

    min: float
    """The smallest x of the calibration rows, not below -amax. Asymmetric uint8 uses it."""

    max: float
    """The largest x of the calibration rows, not above amax. Asymmetric uint8 uses it."""

    scale: NotRequired[float]
    """The scale that model.int8.onnx holds: amax / 127, rounded to the nearest float16. Older files lack it."""


class DistanceRecord(TypedDict):
    """The distance of a graph's logits from the FP32 logits, over the hold-out rows."""

    kl: float | None
    """Mean KL divergence of the class probabilities, in nats; null for a regression."""

    rms: float
    """Root mean square of the logit differences, in units of the logits."""

    changed: float | None
    """Share of rows whose label differs, 0 to 1; where a row has several labels or tags, the drop of the main metric if
    FP32's predictions were the truth; null for a regression."""


class TrialRecord(DistanceRecord):
    """One combination of range method and smoothing that `--calib-method auto` tried."""

    method: str
    """The range method, such as `entropy`."""

    smooth: float | None
    """SmoothQuant's alpha, 0 to 1; null without smoothing."""

    rows: NotRequired[int]
    """The number of hold-out rows that the distance is over: fewer than all if these already showed that the
    combination is not the nearest. Older files lack it; theirs are over all."""


class KeptRecord(DistanceRecord):
    """One set of GEMMs that stays in higher precision, and the result of leaving it out of INT8."""

    keep: list[str]
    """The names of the GEMMs that stay in higher precision."""

    macs: float
    """Their share of all multiply-accumulates of the encoder, 0 to 1."""

    expected_drop_points: float
    """The expected drop of the task's metric, in points (1/100)."""


class ChosenOnRecord(TypedDict):
    """The hold-out rows on which `--calib-method auto` chose the method."""

    rows: int
    """Number of rows."""

    data_sha256: str
    """SHA-256 of the rows, hexadecimal."""


class OverlapRecord(TypedDict):
    """Rows whose text stands in the train split and in the evaluated split."""

    train_rows: int
    """Rows of the train split, or of `--calib-data`."""

    left_out: int
    """How many of them stand in the evaluated split too. They are not used for calibration or for the hold-out."""

    evaluated_rows: int
    """Rows of the evaluated split."""

    evaluated_in_train: int
    """How many of them stand in the train split too. A model was trained on these, so their metric is too high."""


class CalibrationSummary(TypedDict):
    """How the ranges were made, as calibration.json and bundle.json both say."""

    method: str
    """The range method, such as `entropy`; under `--calib-method auto`, the method that was chosen."""

    smooth: float | None
    """SmoothQuant's alpha, 0 to 1; null without smoothing."""

    samples: int
    """Number of calibration rows."""

    data_sha256: str
    """SHA-256 of the calibration rows, hexadecimal."""

    graph_sha256: str
    """SHA-256 of the model.onnx that was calibrated, hexadecimal."""

    overlap: NotRequired[OverlapRecord]
    """The rows that were left out, if the evaluated split shares any with the train split."""

    max_drop: NotRequired[float | None]
    """The gate's limit, in points (1/100), under `--calib-method auto`; null without a gate."""

    chosen_on: NotRequired[ChosenOnRecord]
    """The hold-out rows, under `--calib-method auto`."""

    trials: NotRequired[list[TrialRecord]]
    """Every combination that `--calib-method auto` tried, nearest to FP32 first."""

    keep: NotRequired[list[str]]
    """The names of the GEMMs that stay in higher precision, if the gate needs any."""

    kept: NotRequired[KeptRecord]
    """The measured result of the set in `keep`."""

    residual: NotRequired[Literal["int8"]]
    """The residual additions of the graph for TensorRT read INT8, because the gate allows it."""

    residual_drop_points: NotRequired[float]
    """The expected drop of the task's metric with them, in points (1/100)."""


class CalibrationAbout(CalibrationSummary):
    """How the ranges were made, with the digest of each row."""

    row_sha256: NotRequired[list[str]]
    """SHA-256 of each calibration row, hexadecimal, sorted, without duplicates. `eval` refuses
    splits that share rows with these."""

    chosen_sha256: NotRequired[list[str]]
    """SHA-256 of each hold-out row, hexadecimal, sorted, without duplicates."""


class CalibrationRecord(CalibrationAbout):
    """The whole of calibration.json."""

    smoothing: dict[str, str]
    """Name of a smoothed LayerNorm or linear layer to log2 of each channel's factor, in eighths, as integers
    separated by blanks."""

    ranges: dict[str, RangeRecord]
    """Name of a tensor to its calibration range."""


class CacheOrigin(TypedDict):
    """What a TensorRT calibration cache must have been made from to fit an engine."""

    tensorrt: str
    """The version of TensorRT that takes the cache."""

    model_sha256: str
    """SHA-256 of model.onnx, hexadecimal."""

    tokenizer_sha256: str
    """SHA-256 of the digests of the tokenizer's files, hexadecimal."""

    max_length: int
    """Truncation length, in tokens."""

    tensors_sha256: str
    """SHA-256 of the list of tensors that need a scale, hexadecimal."""


class CalibratorRows(TypedDict):
    """The rows that TensorRT's entropy calibrator was given."""

    rows: int
    """Number of rows."""

    batches: int
    """Number of batches."""

    shape: list[int]
    """Rows and tokens of each batch."""

    data_sha256: str
    """SHA-256 of the calibration rows, hexadecimal."""

    missing_scales: int
    """Number of tensors for which TensorRT logged that it has no scale."""


class OwnCacheRecord(CacheOrigin):
    """calibration.cache.json of a cache whose scales come from calibration.json."""

    calibrator: Literal["own"]
    """The source of the scales."""

    calibration_sha256: str
    """SHA-256 of calibration.json, hexadecimal."""

    cache_sha256: str
    """SHA-256 of the cache's text, hexadecimal."""


class TensorrtCacheRecord(CacheOrigin, CalibratorRows):
    """calibration.cache.json of a cache that TensorRT's entropy calibrator made."""

    calibrator: Literal["tensorrt"]
    """The source of the scales."""

    cache_sha256: str
    """SHA-256 of the cache's text, hexadecimal."""


CacheRecord = OwnCacheRecord | TensorrtCacheRecord
