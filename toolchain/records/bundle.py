"""The manifest of a bundle (`bundle.json`), the record of each build step, and the output of `build --json`.

A pass is a function that rewrites a graph. A view is a graph of a bundle that is made for one runtime.
"""

from typing import Any, Literal, NotRequired, TypedDict

from toolchain.records.calibration import CalibrationSummary
from toolchain.records.cascade import CascadeRecord
from toolchain.records.comparison import NamedComparison
from toolchain.records.deployment import Deployment
from toolchain.records.language_model import LanguageModelFacts, LanguageModelRecord, WeightsRecord
from toolchain.records.plan import PlanRecord
from toolchain.records.shrink import ShrinkRecord


class TensorInfo(TypedDict):
    """An input or output of a graph."""

    name: str
    """Name of the tensor."""
    dtype: str
    """Element type, such as `int32` or `float`."""
    shape: list[int | str]
    """Dimensions; a dynamic dimension has a name: `batch` or `sequence`."""


class ParityRecord(TypedDict):
    """How far the logits of a graph differ from those of the checkpoint in PyTorch."""

    rows: int
    """Number of rows that were compared; for a language model, number of token positions."""
    max_abs_logit_difference: float
    """Largest absolute difference of a logit."""
    rms_logit_difference: float
    """Root mean square of all logit differences."""
    label_agreement: float
    """Fraction of the rows for which graph and checkpoint predict the same label, 0 to 1; for a language model, of the
    positions with the same most likely token."""
    largest_logit: float
    """Largest absolute logit of the checkpoint. For a language model, the mean logit of each position is subtracted
    first."""
    finite: bool
    """Whether all logits of the graph and of the checkpoint are finite."""


class ExportedGraph(TypedDict):
    """The graph that was exported from a checkpoint and then simplified."""

    opset: int
    """ONNX opset of the graph."""
    inputs: list[TensorInfo]
    """Inputs of the graph."""
    outputs: list[TensorInfo]
    """Outputs of the graph."""
    nodes: int
    """Number of nodes."""
    passes: dict[str, int]
    """Name of a simplifying pass -> number of changes that it made. For a language model only `fold_keys` -> number of
    attention blocks that read their cached keys without copying them."""


class ExportRecord(ExportedGraph):
    """Step `export`: converts the checkpoint to `model.onnx`."""

    parity: ParityRecord
    """Differences of the graph from PyTorch."""
    tokenizer: NotRequired["StoredTokenizerRecord | None"]
    """The stored tokenizer, as in the key `model` of the manifest."""


class LanguageModelExport(ExportedGraph):
    """Step `export` of a language model: converts the checkpoint to `model.onnx`."""

    parity: ParityRecord
    """Differences from PyTorch at every position of random batches: prompts, decoding steps, and padding on the
    left."""
    lm: LanguageModelFacts
    """Facts about the checkpoint, as in the key `lm` of the manifest."""


class CpuRecord(TypedDict):
    """Step `cpu`: converts `model.onnx` to `model.fp32.cpu.onnx`, the FP32 graph for ONNX Runtime on a CPU."""

    passes: dict[str, int]
    """Name of a pass -> number of changes that it made."""
    parity: ParityRecord
    """Differences of the graph from PyTorch."""


class LargeTensor(TypedDict):
    """A tensor, or the integer sums of an INT8 GEMM, with its largest value. float16 holds values up to 65,504."""

    tensor: str
    """Name of the tensor; for integer sums, name of the GEMM's node."""
    amax: float
    """Largest absolute value over the rows that were run."""


class Float16Record(TypedDict):
    """Which parts of a graph are in float16, and which values are too large for float16."""

    float16_nodes: NotRequired[int]
    """Number of nodes that compute in float16."""
    beyond_float16: NotRequired[list[LargeTensor]]
    """Tensors with values above half of float16's maximum, largest first. The nodes that compute or read them stay in
    float32."""
    large_sums: NotRequired[list[LargeTensor]]
    """INT8 GEMMs whose integer sums exceed float16's maximum before they are scaled, largest first; absent if there are
    none."""


class HalfRecord(Float16Record):
    """Step `half`: converts `model.onnx` to `model.fp16.onnx`, the float16 graph."""

    passes: NotRequired[dict[str, int]]
    """Name of a pass -> number of changes that it made."""
    parity: ParityRecord
    """Differences from PyTorch when the graph runs on a CPU with its float16 tensors rounded to float16."""


class CudaRecord(Float16Record):
    """Step `cuda`: makes `model.fp16.cuda.onnx`, a float16 graph with fused operators for ONNX Runtime on CUDA."""

    passes: dict[str, int] | None
    """Name of a pass -> number of changes that it made; null if the graph was not made."""
    reason: NotRequired[str]
    """Why the graph was not made: a layer cannot be fused."""
    parity_in_float32: NotRequired[ParityRecord]
    """Differences of the fused graph from PyTorch, before the graph was converted to float16."""
    parity: NotRequired[ParityRecord]
    """Differences of the float16 graph from PyTorch when it runs on a CPU with the inputs and outputs of its operators
    rounded to float16."""


class CalibrateRecord(CalibrationSummary):
    """Step `calibrate`: writes the calibration ranges to `calibration.json` and `calibration.cache`."""

    tensors: NotRequired[int]
    """Number of tensors with a calibration range; absent if the ranges were given with `--calibration`."""


class QuantizedGemms(TypedDict):
    """The GEMMs of a graph that were quantized."""

    target: Literal["tensorrt", "cpu"]
    """`tensorrt`: symmetric int8 or FP8, for TensorRT; `cpu`: uint8 activations, for ONNX Runtime on a CPU."""
    linear: int
    """Number of linear layers that were quantized."""
    attention: int
    """Number of attention GEMMs (scores, and scores times values) that were quantized."""
    residual: NotRequired[int]
    """Number of residual additions that read INT8 inputs; absent in bundles of earlier versions, where it is 0."""
    kept: list[str]
    """Names of the GEMMs kept in higher precision, sorted."""


class QuantizedView(QuantizedGemms, Float16Record):
    """What was quantized in one Q/DQ graph of a bundle, and what stays in float32 or float16."""

    smoothing_muls: int
    """Number of Mul nodes that SmoothQuant added, because their factors could not be folded into weights."""
    passes: NotRequired[dict[str, int]]
    """Name of a pass -> number of changes that it made."""


class GemmTypes(TypedDict):
    """How many GEMMs of a graph ONNX Runtime computes in integers on this CPU, without the head."""

    integer: int
    """Number of GEMMs that ONNX Runtime computes in integers."""
    float: int
    """Number of GEMMs that ONNX Runtime computes in floating point."""


class QuantizeRecord(TypedDict):
    """Step `quantize`: makes `model.int8.onnx` and `model.int8.cpu.onnx`, or `model.fp8.onnx`."""

    views: dict[str, QuantizedView]
    """File name of a graph -> what was quantized in it."""
    products_on_cpu: dict[str, GemmTypes]
    """File name of a graph -> number of its GEMMs that run in integers and in floating point on this CPU."""
    parity: ParityRecord
    """Differences from PyTorch of `model.int8.cpu.onnx`, or of `model.fp8.onnx` with its float16 tensors rounded."""
    parity_in_halves: NotRequired[ParityRecord]
    """Differences of `model.int8.onnx` from PyTorch, on a CPU with its float16 tensors rounded to float16."""


class ViewRecord(Float16Record):
    """Step `rtx` or `trt8`: makes a graph for TensorRT-RTX or TensorRT 8.6 from `model.onnx` and the ranges."""

    passes: dict[str, int]
    """Name of a pass -> number of changes that it made."""
    reference: str
    """File name of the graph whose logits this graph must reproduce, such as `model.int8.onnx`."""
    difference: ParityRecord
    """Differences of this graph's logits from those of `reference`, both in ONNX Runtime on a CPU with float16 tensors
    rounded to float16. If TensorRT chooses the types itself (`trt8`), float16 is assumed wherever it is allowed."""


class StepRecord(TypedDict):
    """A build step that has run, and the files that it wrote."""

    inputs_sha256: str
    """Digest of everything that the step depends on. A build skips the step while this digest is unchanged."""
    files: list[str]
    """Names of the files that the step wrote."""
    record: Any
    """The record of the step, whose type follows from its name: `ExportRecord`, `CpuRecord` and so on; for an engine,
    the content of `plan.json`."""


class PoolingRecord(TypedDict):
    """How an embedding model makes the vector of a text from the vectors of its tokens."""

    mode: str
    """`mean`: the mean over the tokens; `cls`: the vector of the first token."""
    normalize: bool
    """Whether the vector of the text is then scaled to length 1."""
    width: int
    """Number of elements of a vector."""


class StoredTokenizerRecord(TypedDict):
    """The stored tokenizer in the Rust library's format, with which a bundle runs without transformers."""

    file: str
    """`tokenizer.json`, or `tokenizer.rust.json` if the tokenizer that transformers loads differs from the checkpoint's
    `tokenizer.json`."""
    truncation_side: Literal["left", "right"]
    """Side on which the tokens of a long row are cut."""
    split_special_tokens: bool
    """Whether a special token that is written in a text, such as `[SEP]`, is read as plain text."""
    pad_id: int | None
    """Token id of padded positions according to the tokenizer; null if it has none."""
    pad_type_id: int
    """Token type id of padded positions."""
    unknown_id: int | None
    """Token id of unknown words; null if the tokenizer has none."""
    special_tokens: list[str]
    """The special tokens, as text."""


class ModelInfo(TypedDict):
    """The checkpoint that a bundle was built from."""

    id: str
    """Hub id, path, or the name of a demo model."""
    type: str
    """Architecture: `model_type` in the checkpoint's `config.json`."""
    labels: list[str]
    """Names of the classes in the order of the logits."""
    values: NotRequired[dict[str, int]]
    """Name of a model input -> number of values allowed in it: each value is from 0 to this number - 1."""
    pad_id: NotRequired[int]
    """Token id of padded positions that the graphs use."""
    tokenizer: NotRequired[StoredTokenizerRecord | None]
    """The stored tokenizer; null if only transformers can tokenize for this model, absent in bundles of earlier
    versions."""
    batches: NotRequired[Literal["padded", "equal_length"]]
    """`padded`: rows are padded to one length; `equal_length`: padding would change the logits, so a batch has only
    rows with the same number of tokens."""
    pooling: NotRequired[PoolingRecord]
    """How the vector of a text is made; only for embedding models, which have no labels."""
    sha256: dict[str, str]
    """Name of a file of the checkpoint -> its SHA-256."""


class TaskRecord(TypedDict):
    """The task: how its data are read, and how predictions are scored."""

    name: str
    """Name of the task."""
    text_columns: list[str]
    """Names of the text columns: one, or two for text pairs."""
    label_column: str
    """Name of the label column; empty if the task has `label_columns`."""
    label_columns: NotRequired[list[str]]
    """One column for each label, with 1 in the rows that have the label; only for multi-label data in this form."""
    head: NotRequired[str]
    """What the model predicts: `sequence`, `multilabel` and so on; only if the task states it."""
    threshold: NotRequired[float]
    """Lowest score at which a row gets a label, 0 to 1; only if the task states it."""
    pooling: NotRequired[str]
    """`mean` or `cls`: how an encoder without a head makes vectors; only if the task states it."""
    normalize: NotRequired[bool]
    """Whether the vectors of an encoder without a head are scaled to length 1; only if the task states it."""
    query_column: NotRequired[str]
    """Name of the column that identifies the query of a row (reranking); only if the task states it."""
    labels: list[str]
    """Names of the labels in the order of the label ids; empty if the task states none."""
    metrics: list[str]
    """Names of the metrics to compute."""
    primary: str
    """The main metric, which gates compare."""
    folder: str | None
    """Folder with the task's data in the installed package; null if the package has none."""
    hub: dict[str, Any]
    """The data set on the hub: the keys `path`, `config` and `splits`, for `datasets.load_dataset`."""


class Manifest(TypedDict):
    """The content of `bundle.json`: what the bundle contains, how it was built, and the digest of each file."""

    schema: int
    """Version of this format: 1."""
    model: ModelInfo
    """The checkpoint that the bundle was built from."""
    shrink: NotRequired[ShrinkRecord]
    """How `toolchain shrink` made the checkpoint from a larger one; absent for other checkpoints."""
    task: TaskRecord
    """The task that the bundle was built for."""
    precision: str
    """Precision that the bundle was built in: `fp32`, `fp16`, `int8` or `fp8`; for a language model also `int4`."""
    max_length: int
    """Number of tokens to which every backend truncates a row."""
    inputs: list[TensorInfo]
    """Inputs of the graphs, the same for all."""
    outputs: list[TensorInfo]
    """Outputs of the graphs, the same for all."""
    parity: dict[str, ParityRecord]
    """Name of a step -> differences of the step's graph from PyTorch."""
    calibration: CalibrateRecord | None
    """How the calibration ranges were made; null in a bundle without them."""
    cascade: NotRequired[CascadeRecord]
    """The first stage of the cascade, which answers easy rows before this model; absent in a bundle of one model."""
    lm: NotRequired[LanguageModelRecord]
    """Facts that text generation needs; only for a language model."""
    recipe: dict[str, Any]
    """Options of the build, with `_` for `-` in their names; options without a value are left out."""
    versions: dict[str, str | None]
    """Name of a package -> version that the bundle was built with; null if it was not installed."""
    steps: dict[str, StepRecord]
    """Name of a step -> the files that it wrote. The step of an engine has the name of its folder, such as
    `plans/sm75-trt10.16.1.11`."""
    artefacts: dict[str, str]
    """Name of a file of the bundle -> its SHA-256."""
    created: str
    """Time of the last change, ISO 8601, UTC."""
    sha256: str
    """SHA-256 over everything else in this file. It identifies the bundle; `--trust` takes it."""


class BuildRecord(TypedDict):
    """What `toolchain build --json` prints."""

    bundle: str
    """Path of the bundle."""
    precision: str
    """Precision that the bundle was built in: `fp32`, `fp16`, `int8` or `fp8`; for a language model also `int4`."""
    would_do: NotRequired[list[str]]
    """Names of the steps that a build would run. Only with `--dry-run`, where all later keys of this record are
    absent."""
    up_to_date: NotRequired[bool]
    """Whether the bundle was already up to date, so that no step ran."""
    done: NotRequired[list[str]]
    """Names of the steps that ran."""
    skipped: NotRequired[list[str]]
    """Names of the steps that were skipped, because their inputs had not changed."""
    artefacts: NotRequired[list[str]]
    """Names of all files of the bundle."""
    export: NotRequired[ExportRecord | LanguageModelExport]
    """Record of the step `export`."""
    cpu: NotRequired[CpuRecord]
    """Record of the step `cpu`."""
    half: NotRequired[HalfRecord]
    """Record of the step `half`."""
    cuda: NotRequired[CudaRecord]
    """Record of the step `cuda`."""
    calibrate: NotRequired[CalibrateRecord]
    """Record of the step `calibrate`."""
    quantize: NotRequired[QuantizeRecord]
    """Record of the step `quantize`."""
    weights: NotRequired[WeightsRecord]
    """Record of the step `weights`; only for a language model."""
    rtx: NotRequired[ViewRecord]
    """Record of the step `rtx`."""
    trt8: NotRequired[ViewRecord]
    """Record of the step `trt8`."""
    engine: NotRequired[PlanRecord]
    """Record of the first engine, as in its `plan.json`."""
    engines: NotRequired[list[PlanRecord]]
    """Records of all engines; `--backend trt-rtx` builds one engine for each target."""
    lacks: NotRequired[str]
    """Why no engine was built although `--backend` asked for one."""
    gate: NotRequired[list[NamedComparison]]
    """Comparisons of the bundle's graphs with the FP32 graph. Only with `--max-drop`."""
    deploy: NotRequired[Deployment]
    """The artefact that may be deployed according to the gate. Only with `--max-drop`."""
    next: NotRequired[str]
    """Command to run next; after a build with a gate, it is in `deploy` instead."""
