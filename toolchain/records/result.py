"""The result of an evaluation: `results/STEM.json` in a bundle, and what `toolchain eval --json` prints.

A key that is `NotRequired` may be missing from a result that an earlier version wrote. Null means that the value is not
known or does not apply. Units are part of the key: `_ms`, `_s`, `_mb`, `_j`. Agreement and changed rows refer to the
FP32 reference: the predictions of the model in FP32 on the same rows.
"""

from typing import NotRequired, TypedDict

from toolchain.records.cascade import CascadeRun
from toolchain.records.energy import EnergyBlock
from toolchain.records.mlperf import MlperfBlock
from toolchain.records.roofline import RooflineBlock


class FileDigest(TypedDict):
    """A file beside the result, and its digest."""

    file: str
    """Name of the file, in the folder of the result."""
    sha256: str
    """SHA-256 of the file's bytes, hexadecimal."""


class ArtefactDigest(TypedDict):
    """The file that ran, and its digest."""

    file: str
    """File name of the artefact in the bundle; `checkpoint` for a checkpoint in PyTorch, or the URL of a server."""
    sha256: str | None
    """SHA-256 of the artefact, hexadecimal; for a checkpoint, SHA-256 over the digests of its files. Null for a
    server."""


class ChangedRow(TypedDict):
    """A row whose predicted label differs from that of the FP32 reference."""

    row: int
    """Index of the row in the split, from 0."""
    text: str
    """The text of the row, or both texts of a pair joined by ` | `; at most 300 characters."""
    label: str
    """Label of the row in the data."""
    reference: str
    """Label that the FP32 reference predicts."""
    predicted: str
    """Label that the evaluated model predicts."""


class AgreementFigures(TypedDict, total=False):
    """Figures of agreement with the FP32 reference that only some types of models have."""

    per_label: dict[str, float]
    """Name of a label -> fraction of the rows for which model and reference agree on it. Only for multi-label
    models."""
    cosine_min: float
    """Smallest cosine similarity between a row's vector and the reference's vector. Only for embedding models."""
    cosine_p01: float
    """1st percentile of the cosine similarities between the rows' vectors and the reference's. Only for embedding
    models."""


class Agreement(AgreementFigures):
    """How well the predictions agree with those of the FP32 reference."""

    reference: str
    """Backend and precision of the FP32 reference: `torch-fp32`, `ort-fp32` if the checkpoint is not available, or
    `original-fp32` for a checkpoint that `toolchain shrink` made."""
    label_agreement: float | None
    """Fraction of the rows with the same predicted label, 0 to 1; null for a regression."""
    max_abs_logit_difference: float
    """Largest absolute difference of a logit."""
    predictions: NotRequired[FileDigest]
    """File with the predictions of the FP32 reference, in the format of the result's `predictions`."""
    changed_rows: NotRequired[list[ChangedRow] | None]
    """The first 20 rows whose predicted label differs from the reference's; null for a regression."""


class CallTimesMs(TypedDict):
    """Times of single calls, in milliseconds."""

    mean: float
    """Mean, ms."""
    p50: float
    """Median, ms."""
    p90: float
    """90th percentile, ms."""
    p95: float
    """95th percentile, ms."""
    p99: float
    """99th percentile, ms."""


class LatencyMs(CallTimesMs):
    """Latency of single requests, from text to logits, in milliseconds."""

    batch_size: int
    """Number of rows in each request: always 1."""


class TokenCounts(TypedDict):
    """How many tokens, positions and batches the timed evaluation computed."""

    real: int
    """Number of real tokens in all rows, without padding."""
    slots: int
    """Number of positions in all batches, padding included. In each batch: rows times tokens of the longest row."""
    padding_efficiency: float
    """Fraction of the positions that are real tokens: `real` / `slots`."""
    real_pairs: NotRequired[int]
    """Sum over all rows of the squared number of tokens. The work of attention is proportional to it."""
    slot_pairs: NotRequired[int]
    """Sum over all rows of the squared number of positions, padding included."""
    truncated_rows: NotRequired[int]
    """Number of rows that were longer than `max_length` and were truncated."""
    batches: NotRequired[int]
    """Number of batches."""
    lengths: NotRequired[list[list[int]]]
    """Histogram of row lengths: pairs `[tokens, rows]`, shortest first."""
    batch_slots: NotRequired[int]
    """Largest number of positions that a batch may have, padding included: the fastest of several values that were
    tried."""


class PeakMemoryMb(TypedDict):
    """Peak memory during the timed evaluation, in MB (10^6 bytes)."""

    host: float | None
    """Resident memory of this process; null if the model runs in a server."""
    device: float | None
    """GPU memory of this process; null without a GPU, or for the reason in `device_reason`."""
    device_method: NotRequired[str | None]
    """How `device` was measured: `nvml_samples`, by sampling NVML."""
    device_reason: NotRequired[str | None]
    """Code of the reason why `device` is null."""


class Environment(TypedDict):
    """Library versions, processor and GPU of the machine. A version is null if the library is not installed."""

    python: str
    """Version of Python."""
    torch: str | None
    """Version of PyTorch."""
    transformers: NotRequired[str | None]
    """Version of transformers."""
    onnxruntime: str | None
    """Version of ONNX Runtime (package `onnxruntime` or `onnxruntime-gpu`)."""
    openvino: NotRequired[str | None]
    """Version of OpenVINO; missing in results of earlier versions."""
    tensorrt: str | None
    """Version of TensorRT."""
    tensorrt_rtx: NotRequired[str | None]
    """Version of TensorRT-RTX; missing in results of earlier versions."""
    cuda: str | None
    """CUDA version that NVIDIA's driver supports; null without a driver."""
    driver: str | None
    """Version of NVIDIA's driver; null without one."""
    gpu: str | None
    """Name of the first GPU; null without one."""
    cpu: str
    """Model name of the processor; if it is unknown, its architecture."""
    threads: int
    """Number of logical processors that the process may use."""
    platform: NotRequired[str]
    """Operating system and architecture."""


class Timing(TypedDict):
    """Latency, throughput and token counts of the timed evaluation."""

    latency_ms: LatencyMs
    """Latency of requests with one row, in milliseconds."""
    throughput_per_s: float
    """Rows per second from text to logits, in batches of up to `tokens.batch_slots` positions."""
    runtime_throughput_per_s: float
    """Rows per second of the runtime alone, without tokenization."""
    tokens: TokenCounts
    """How many tokens, positions and batches were computed."""


class Contention(TypedDict):
    """Whether other processes slowed this process down while it was timed."""

    waiting_share: float | None
    """Fraction of the threads' runnable time that they spent waiting for a processor, 0 to 1; null if it is unknown."""
    load_average: float | None
    """Load average over the last minute, when the timing began; null if the system has none."""
    busy: bool
    """Whether `waiting_share` is above 0.2, so that the measured times are too long."""


class Speed(Timing):
    """Latency, throughput and memory of the timed evaluation."""

    peak_memory_mb: PeakMemoryMb
    """Peak memory during the timed evaluation, in MB."""
    contention: NotRequired[Contention]
    """Whether other processes slowed this process down while it was timed."""


class MostFrequent(TypedDict):
    """The accuracy, beside that of a model which always predicts the most frequent label."""

    share: float
    """Fraction of the rows that have the most frequent label, 0 to 1: the accuracy of always predicting it."""
    accuracy: float
    """Fraction of the rows whose label the evaluated model predicts correctly, 0 to 1."""


class LabelFigures(TypedDict):
    """Precision, recall and F1 of one label of a multi-label classifier, or of one type of entity."""

    precision: float
    """Precision: fraction of the rows (or entities) with this predicted label that have it in the data, 0 to 1; 0 if
    there are none."""
    recall: float
    """Recall: fraction of the rows (or entities) with this label in the data for which it is predicted, 0 to 1; 0 if
    there are none."""
    f1: float
    """F1: harmonic mean of precision and recall."""
    rows: int
    """Number of rows that have the label in the data."""


class Scores(TypedDict):
    """The metrics of a task, with their confidence intervals."""

    labels: NotRequired[list[str] | None]
    """Names of the classes, in the order of the label ids in `predictions`; null for a regression."""
    most_frequent: NotRequired[MostFrequent | None]
    """The accuracy, beside that of always predicting the most frequent label; null for a regression."""
    metrics: dict[str, float]
    """Name of a metric -> its value."""
    metrics_ci95: dict[str, list[float]]
    """Name of a metric -> lower and upper end of its 95 % confidence interval. Accuracy and subset accuracy have
    Wilson's score interval; all other metrics have percentiles over random draws: of rows, of queries for rankings, or
    of confusion tables for F1 and Matthews' correlation."""
    per_label: NotRequired[dict[str, LabelFigures]]
    """Name of a label -> its precision, recall and F1. Only for multi-label models."""


class WhatRan(TypedDict):
    """The model, backend and device of an evaluation."""

    model: str
    """Hub id or path of the checkpoint."""
    backend: str
    """Backend that ran the model: `torch`, `ort`, `trt`, `ort-trt`, `triton`, `service` and so on."""
    device: str
    """Device: `cpu`, `cuda:N`, or `remote` for a server."""
    halves: NotRequired[bool]
    """Whether the graph ran on a CPU with its float16 tensors rounded to float16 (`--halves`). Its speed is then that
    of the emulation, not of a GPU."""
    precision: str
    """Precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8`."""
    artefact: ArtefactDigest
    """The file that ran, and its digest."""
    variant: str
    """Precision, and whatever else distinguishes runs of the same backend: `int8.cpu`, `fp16.packed`, `int8.graphs`
    (CUDA graphs)."""
    cascade: NotRequired[CascadeRun | None]
    """How many of the rows a cascade passed on to its second stage; null if the model is not a cascade."""
    learnt_rows: NotRequired[int]
    """Number of evaluated rows that the model has learnt from in `shrink` or `heal`. They make its metrics too high."""


class Result(WhatRan, Scores, Speed):
    """The result of evaluating one backend on one split of one task."""

    schema: int
    """Version of this format: 1."""
    task: str
    """Name of the task."""
    split: str
    """Name of the split."""
    n: int
    """Number of rows that were evaluated."""
    data_sha256: str
    """SHA-256 of the rows' texts and labels, hexadecimal."""
    predictions: NotRequired[FileDigest]
    """NumPy `.npz` file beside the result, with row ids, logits, labels of the data, and predicted labels or
    numbers."""
    primary: str
    """Name of the task's main metric, which gates compare; a key of `metrics`."""
    agreement: Agreement
    """Agreement with the predictions of the FP32 reference."""
    roofline: NotRequired[RooflineBlock]
    """Operations and bytes of the evaluation, and the fraction of the device's peak that it reached."""
    energy: EnergyBlock
    """Energy of the evaluation, or the reason why it was not measured."""
    mlperf: NotRequired[MlperfBlock | None]
    """Result of a run of MLPerf's LoadGen; null without `--scenario`."""
    max_length: NotRequired[int]
    """Number of tokens to which a row was truncated."""
    environment: Environment
    """Library versions, processor and GPU of the machine."""
    seed: NotRequired[int]
    """Seed of all random choices."""
    command: NotRequired[str]
    """Shell command that repeats the evaluation."""
    created: str
    """Time at which the evaluation ended, ISO 8601, UTC."""
    file: NotRequired[str]
    """Path of the file that the result was saved to. Only in the printed result."""
