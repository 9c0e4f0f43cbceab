"""The result of an evaluation: `results/STEM.json` in a bundle, and what `toolchain eval --json` prints.

A key that is `NotRequired` may be missing from a result that an earlier version wrote; `null` means that the value is
not known or does not apply. Units are part of the key: `_ms`, `_s`, `_mb`, `_j`.
"""

from typing import NotRequired, TypedDict

from toolchain.records.cascade import CascadeRun
from toolchain.records.energy import EnergyBlock
from toolchain.records.mlperf import MlperfBlock
from toolchain.records.roofline import RooflineBlock


class FileDigest(TypedDict):
    """A file and its digest."""

    file: str
    """Name of the file, in the folder of the result."""
    sha256: str
    """SHA-256 of the file's bytes, hexadecimal."""


class ArtefactDigest(TypedDict):
    """What ran."""

    file: str
    """Name of the artefact in the bundle, `checkpoint`, or the URL of a server."""
    sha256: str | None
    """SHA-256 of the artefact, or of the checkpoint's list of digests; null for a server."""


class ChangedRow(TypedDict):
    """A row whose predicted label differs from that of the FP32 reference."""

    row: int
    """Position of the row in the split, from 0."""
    text: str
    """Its text, or its texts joined by ` | `; at most 300 characters."""
    label: str
    """Its label in the data."""
    reference: str
    """Label that the reference predicts."""
    predicted: str
    """Label that was predicted."""


class AgreementFigures(TypedDict, total=False):
    """What only some heads say of an agreement."""

    per_label: dict[str, float]
    """Label -> share of the rows for which both predict the same of it; only with several labels a row."""
    cosine_min: float
    """Least cosine of a vector to the reference's; only of embeddings."""
    cosine_p01: float
    """The 1 % quantile of these cosines; only of embeddings."""


class Agreement(AgreementFigures):
    """How far the predictions are from those of the FP32 reference."""

    reference: str
    """Backend and precision of the reference: `torch-fp32`, or `ort-fp32` where the checkpoint is not at hand."""
    label_agreement: float | None
    """Share of the rows with the same predicted label, 0 to 1; null for a regression."""
    max_abs_logit_difference: float
    """Largest absolute difference of any logit."""
    predictions: NotRequired[FileDigest]
    """Predictions of the reference, as in `predictions` of the result."""
    changed_rows: NotRequired[list[ChangedRow] | None]
    """The first 20 rows whose label differs from the reference's; null for a regression."""


class CallTimesMs(TypedDict):
    """Times of single calls, in milliseconds."""

    mean: float
    """Arithmetic mean."""
    p50: float
    """Median."""
    p90: float
    """90th percentile."""
    p95: float
    """95th percentile."""
    p99: float
    """99th percentile."""


class LatencyMs(CallTimesMs):
    """Time from text to logits of one request, in milliseconds."""

    batch_size: int
    """Rows in each request: 1."""


class TokenCounts(TypedDict):
    """What the measured pass computed: tokens, padded positions, batches."""

    real: int
    """Tokens of all rows, without padding."""
    slots: int
    """Padded positions of all batches: rows of a batch times its longest row, summed over the batches."""
    padding_efficiency: float
    """`real` / `slots`, 0 to 1."""
    real_pairs: NotRequired[int]
    """Sum of the squared row lengths: attention computes one score for each pair of positions in a row."""
    slot_pairs: NotRequired[int]
    """The same for the padded rows."""
    truncated_rows: NotRequired[int]
    """Rows that are longer than `max_length`, so that the model does not see their ends."""
    batches: NotRequired[int]
    """Number of batches."""
    lengths: NotRequired[list[list[int]]]
    """Pairs `[tokens, rows]`: how many rows have this number of tokens, shortest first."""
    batch_slots: NotRequired[int]
    """Padded positions that a batch may have: the fastest of the budgets that were tried."""


class PeakMemoryMb(TypedDict):
    """Peak memory of the measured pass in MB (10^6 bytes)."""

    host: float | None
    """Resident memory of this process; null where the model runs in a server."""
    device: float | None
    """Memory of this process on the GPU; null without one."""
    device_method: NotRequired[str | None]
    """How `device` was measured: `nvml_samples`."""
    device_reason: NotRequired[str | None]
    """Code of the reason why `device` is null."""


class Environment(TypedDict):
    """Versions, processor and GPU of the machine."""

    python: str
    """Version of Python."""
    torch: str | None
    """Version of PyTorch."""
    transformers: NotRequired[str | None]
    """Version of transformers."""
    onnxruntime: str | None
    """Version of ONNX Runtime, of either of its packages."""
    openvino: NotRequired[str | None]
    """Version of OpenVINO; missing in results of earlier versions."""
    tensorrt: str | None
    """Version of TensorRT, of any of its packages."""
    tensorrt_rtx: NotRequired[str | None]
    """Version of TensorRT-RTX; missing in results of earlier versions."""
    cuda: str | None
    """CUDA version of the driver."""
    driver: str | None
    """Version of NVIDIA's driver."""
    gpu: str | None
    """Name of the first GPU."""
    cpu: str
    """Model name of the processor, or its architecture."""
    threads: int
    """Processors that the process may use."""
    platform: NotRequired[str]
    """Operating system and architecture."""


class Timing(TypedDict):
    """Latency and throughput of the measured pass."""

    latency_ms: LatencyMs
    """Latency of single rows, in milliseconds."""
    throughput_per_s: float
    """Rows per second of wall time, from text to logits, in batches of `tokens.batch_slots`."""
    runtime_throughput_per_s: float
    """Rows per second of the model alone, without tokenization."""
    tokens: TokenCounts
    """What the measured pass computed."""


class Contention(TypedDict):
    """Whether other processes kept this one from its processors while it was timed."""

    waiting_share: float | None
    """Share of the time that threads could have run in which they waited for a processor, 0 to 1; null if unknown."""
    load_average: float | None
    """Load average of the last minute when the timing began; null where the system has none."""
    busy: bool
    """Whether `waiting_share` is above 0.2: the times are then too long."""


class Speed(Timing):
    """Latency, throughput and memory of the measured pass."""

    peak_memory_mb: PeakMemoryMb
    """Peak memory of the measured pass, in MB."""
    contention: NotRequired[Contention]
    """Whether the machine was busy with other work."""


class MostFrequent(TypedDict):
    """What always answering the most frequent label would give."""

    share: float
    """Share of the rows with the most frequent label, 0 to 1."""
    accuracy: float
    """Share of the rows whose predicted label is right, 0 to 1."""


class LabelFigures(TypedDict):
    """How well one label is predicted, of a model that gives several labels a row."""

    precision: float
    """Share of the rows with this predicted label that have it, 0 to 1; 0 without any."""
    recall: float
    """Share of the rows with this label for which it is predicted, 0 to 1; 0 without any."""
    f1: float
    """Harmonic mean of both."""
    rows: int
    """Rows that have the label in the data."""


class Scores(TypedDict):
    """The metrics of a task."""

    labels: NotRequired[list[str] | None]
    """Names of the classes, in the order of the labels in `predictions`; null for a regression."""
    most_frequent: NotRequired[MostFrequent | None]
    """The most frequent label, beside the accuracy; null for a regression."""
    metrics: dict[str, float]
    """Metric -> value."""
    metrics_ci95: dict[str, list[float]]
    """Metric -> low and high end of its 95 % interval over rows: Wilson's for shares of right rows, of draws of the
    confusion table for F1 and Matthews' correlation, of draws of the rows for micro and macro F1, a bootstrap for other
    correlations."""
    per_label: NotRequired[dict[str, LabelFigures]]
    """Label -> its figures; only of a model that gives several labels a row."""


class WhatRan(TypedDict):
    """What ran, and where."""

    model: str
    """Hub id or path of the checkpoint."""
    backend: str
    """Backend that ran: `torch`, `ort`, `trt`, `ort-trt`, `triton` or `service`."""
    device: str
    """`cpu`, `cuda:N`, or `remote` for a server."""
    halves: NotRequired[bool]
    """Whether float16 tensors were rounded to float16 on a CPU (`--halves`): speed is then that of the emulation."""
    precision: str
    """Number type: `fp32`, `fp16`, `bf16`, `int8` or `fp8`."""
    artefact: ArtefactDigest
    """What ran."""
    variant: str
    """Precision and what else distinguishes runs of one backend: `int8.cpu`, `fp16.packed`, `int8.graphs`."""
    cascade: NotRequired[CascadeRun | None]
    """What the first stage of a cascade did; null for one model."""
    learnt_rows: NotRequired[int]
    """Rows that it learnt from in `shrink` or `heal` among those evaluated, which make its figures too good."""


class Result(WhatRan, Scores, Speed):
    """One backend on one split of one task."""

    schema: int
    """Version of this format: 1."""
    task: str
    """Name of the task."""
    split: str
    """Name of the split."""
    n: int
    """Number of rows."""
    data_sha256: str
    """SHA-256 of the texts and labels of the rows."""
    predictions: NotRequired[FileDigest]
    """Row ids, logits, references and predicted labels or numbers, as a NumPy `.npz` beside the result."""
    primary: str
    """The task's main metric, which gates compare; a key of `metrics`."""
    agreement: Agreement
    """Agreement with the FP32 reference."""
    roofline: NotRequired[RooflineBlock]
    """Operations, bytes, and the share of the device's ceiling that was reached."""
    energy: EnergyBlock
    """Energy, or the reason why none was measured."""
    mlperf: NotRequired[MlperfBlock | None]
    """Result of MLPerf's LoadGen; null without `--scenario`."""
    max_length: NotRequired[int]
    """Tokens after which a row was truncated."""
    environment: Environment
    """The machine."""
    seed: NotRequired[int]
    """Seed of every random choice."""
    command: NotRequired[str]
    """Command that evaluates the same again."""
    created: str
    """Time at which the evaluation ended, ISO 8601, UTC."""
    file: NotRequired[str]
    """Path of the result; not in the file itself, only in what is printed."""
