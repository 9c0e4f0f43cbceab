"""The manifest of a bundle, `bundle.json`, with a record of each step; and what `toolchain build --json` prints."""

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
    """Element type: `int32`, `float`."""
    shape: list[int | str]
    """Dimensions; a name stands for a dynamic one: `batch`, `sequence`."""


class ParityRecord(TypedDict):
    """The largest differences of a graph from the checkpoint in PyTorch, over some rows."""

    rows: int
    """Rows that were compared."""
    max_abs_logit_difference: float
    """Largest absolute difference of any logit."""
    rms_logit_difference: float
    """Root mean square difference over the logits of all rows."""
    label_agreement: float
    """Share of the rows with the same predicted label, 0 to 1."""
    largest_logit: float
    """Largest absolute logit of the reference; of a language model, less the mean of its position's logits."""
    finite: bool
    """Whether each logit of both was finite."""


class ExportedGraph(TypedDict):
    """A checkpoint's graph, cleaned."""

    opset: int
    """ONNX opset of the graph."""
    inputs: list[TensorInfo]
    """Inputs of the graph."""
    outputs: list[TensorInfo]
    """Outputs of the graph."""
    nodes: int
    """Number of nodes."""
    passes: dict[str, int]
    """Cleaning pass -> number of places that it changed; of a language model `fold_keys` -> attentions that read keys
    in place."""


class ExportRecord(ExportedGraph):
    """Step `export`: checkpoint to `model.onnx`."""

    parity: ParityRecord
    """Differences from PyTorch."""
    tokenizer: NotRequired["StoredTokenizerRecord | None"]
    """As in the manifest's `model`."""


class LanguageModelExport(ExportedGraph):
    """Step `export` of a language model: checkpoint to `model.onnx`."""

    parity: ParityRecord
    """Differences from PyTorch over the positions of random batches: prompts, later steps, padding on the left."""
    lm: LanguageModelFacts
    """As in the manifest."""


class CpuRecord(TypedDict):
    """Step `cpu`: `model.onnx` to `model.fp32.cpu.onnx`."""

    passes: dict[str, int]
    """Pass -> number of places that it changed."""
    parity: ParityRecord
    """Differences from PyTorch."""


class LargeTensor(TypedDict):
    """A tensor, or the integer sums of a GEMM, with values that do not fit float16, whose largest number is 65,504."""

    tensor: str
    """Name of the tensor, or of the GEMM's node."""
    amax: float
    """Largest magnitude over the rows."""


class Float16Record(TypedDict):
    """The types of a graph in float16 and float32."""

    float16_nodes: NotRequired[int]
    """Nodes that compute in float16."""
    beyond_float16: NotRequired[list[LargeTensor]]
    """Tensors that exceed half of float16's range, largest first: the nodes that compute or read them are in float32.
    """
    large_sums: NotRequired[list[LargeTensor]]
    """INT8 GEMMs whose integer sums exceed float16 before they are scaled, largest first; missing if there are none."""


class HalfRecord(Float16Record):
    """Step `half`: `model.onnx` to `model.fp16.onnx`."""

    passes: NotRequired[dict[str, int]]
    """Pass -> number of places that it changed."""
    parity: ParityRecord
    """Differences from PyTorch, with float16 tensors rounded to float16."""


class CudaRecord(Float16Record):
    """Step `cuda`: `model.onnx` to `model.fp16.cuda.onnx`, where its layers can be fused."""

    passes: dict[str, int] | None
    """Pass -> number of places that it changed; null if the graph was not made."""
    reason: NotRequired[str]
    """Why the graph was not made."""
    parity_in_float32: NotRequired[ParityRecord]
    """Differences from PyTorch, of the fused graph before its conversion to float16."""
    parity: NotRequired[ParityRecord]
    """Differences from PyTorch, with float16 tensors between operators rounded to float16."""


class CalibrateRecord(CalibrationSummary):
    """Step `calibrate`: `model.onnx` and rows to `calibration.json` and `calibration.cache`."""

    tensors: NotRequired[int]
    """Tensors with a range; missing if the ranges were given."""


class QuantizedGemms(TypedDict):
    """The GEMMs of a graph that were quantized."""

    target: Literal["tensorrt", "cpu"]
    """Scheme: symmetric int8 or FP8 for TensorRT, or uint8 activations for ONNX Runtime on a CPU."""
    linear: int
    """Quantized linear layers."""
    attention: int
    """Quantized GEMMs of attention."""
    residual: NotRequired[int]
    """Residual additions that read INT8; bundles before it had none."""
    kept: list[str]
    """GEMMs kept in higher precision, sorted."""


class QuantizedView(QuantizedGemms, Float16Record):
    """What was quantized in one Q/DQ graph of a bundle, and what stays in float32 or float16 there."""

    smoothing_muls: int
    """Multiplications that smoothing added because they could not be folded into weights."""
    passes: NotRequired[dict[str, int]]
    """Pass -> number of places that it changed."""


class GemmTypes(TypedDict):
    """GEMMs of a graph as ONNX Runtime runs it on this CPU, without the classification head."""

    integer: int
    """GEMMs in integers."""
    float: int
    """GEMMs in floating point."""


class QuantizeRecord(TypedDict):
    """Step `quantize`: `model.onnx` and ranges to `model.int8.onnx` and `model.int8.cpu.onnx`; or `model.fp8.onnx`."""

    views: dict[str, QuantizedView]
    """File -> what was quantized."""
    products_on_cpu: dict[str, GemmTypes]
    """File -> types of its GEMMs on this CPU."""
    parity: ParityRecord
    """Differences of `model.int8.cpu.onnx` from PyTorch; of `model.fp8.onnx`, with float16 tensors rounded."""
    parity_in_halves: NotRequired[ParityRecord]
    """Differences of `model.int8.onnx` from PyTorch, with float16 tensors rounded to float16."""


class ViewRecord(Float16Record):
    """Step `rtx` or `trt8`: a graph for one release of TensorRT, from `model.onnx` and ranges."""

    passes: dict[str, int]
    """Pass -> number of places that it changed."""
    reference: str
    """The graph that it is a form of."""
    difference: ParityRecord
    """Differences from that graph, both in ONNX Runtime, with float16 tensors rounded to float16. A graph whose types
    TensorRT chooses is taken to be in float16 wherever it may be."""


class StepRecord(TypedDict):
    """A step that was run, and what it made."""

    inputs_sha256: str
    """Digest of everything that the step depends on: it is skipped while this stays the same."""
    files: list[str]
    """Artefacts that it wrote."""
    record: Any
    """Its record: `ExportRecord`, `CpuRecord`, ..., by the name of the step; `plan.json` for an engine."""


class PoolingRecord(TypedDict):
    """How the vector of a text is made from those of its tokens."""

    mode: str
    """`mean`: their mean; `cls`: the first one."""
    normalize: bool
    """Whether a vector then gets the length 1."""
    width: int
    """Numbers of a vector."""


class StoredTokenizerRecord(TypedDict):
    """The tokenizer in the format of the Rust library `tokenizers`, with which a bundle runs without transformers."""

    file: str
    """File of the bundle: `tokenizer.json`, or `tokenizer.rust.json` if transformers changes the checkpoint's."""
    truncation_side: Literal["left", "right"]
    """Side on which a long row is cut."""
    split_special_tokens: bool
    """Whether a special token that is written in a text is text."""
    pad_id: int | None
    """Token id of padded positions that the tokenizer states."""
    pad_type_id: int
    """Token type of padded positions."""
    unknown_id: int | None
    """Token id of unknown words; null without one."""
    special_tokens: list[str]
    """Special tokens."""


class ModelInfo(TypedDict):
    """The checkpoint that a bundle was built from."""

    id: str
    """Hub id, path, or the name of a demo model."""
    type: str
    """Architecture, as in `model_type` of its `config.json`."""
    labels: list[str]
    """Names of the classes in the order of the logits."""
    values: NotRequired[dict[str, int]]
    """Input -> number of its values: each id is at least 0 and below it."""
    pad_id: NotRequired[int]
    """Token id of padded positions."""
    tokenizer: NotRequired[StoredTokenizerRecord | None]
    """The tokenizer without transformers; null if only transformers gives its ids, and missing in earlier versions."""
    batches: NotRequired[Literal["padded", "equal_length"]]
    """Whether rows may be padded, or whether answers depend on padding, so that a batch has rows of one length."""
    pooling: NotRequired[PoolingRecord]
    """How the vector of a text is made; only of embeddings, which have no labels."""
    sha256: dict[str, str]
    """File of the checkpoint -> SHA-256."""


class TaskRecord(TypedDict):
    """The task: how its data are read and scored."""

    name: str
    """Name of the task."""
    text_columns: list[str]
    """One column of texts, or two for pairs."""
    label_column: str
    """Column of labels; empty with `label_columns`."""
    label_columns: NotRequired[list[str]]
    """Columns that have 1 where a row has the label of that name; only of tasks that have them."""
    head: NotRequired[str]
    """What the model puts out: `sequence`, `multilabel` and so on; only if the task names it."""
    threshold: NotRequired[float]
    """Score from which a row has a label, 0 to 1; only if the task names it."""
    pooling: NotRequired[str]
    """`mean` or `cls`: how an encoder without a head makes vectors; only if the task names it."""
    normalize: NotRequired[bool]
    """Whether these vectors have the length 1; only if the task names it."""
    query_column: NotRequired[str]
    """Column with the name of a row's query; only if the task names it."""
    labels: list[str]
    """Names of the labels in the task's order; empty if the task states none."""
    metrics: list[str]
    """Metrics to compute."""
    primary: str
    """The metric that gates compare."""
    folder: str | None
    """Folder of the task's own data in the package; null if it has none."""
    hub: dict[str, Any]
    """The data set on the hub: `path`, `config`, `splits`; arguments of `datasets.load_dataset`."""


class Manifest(TypedDict):
    """What a bundle is, from what and by what it was made, and the digest of each of its files."""

    schema: int
    """Version of this format: 1."""
    model: ModelInfo
    """The checkpoint."""
    shrink: NotRequired[ShrinkRecord]
    """How the checkpoint was made of a larger one; only if `toolchain shrink` made it."""
    task: TaskRecord
    """The task."""
    precision: str
    """Number type of the typed graph: `fp32`, `fp16`, `int8` or `fp8`; of a language model also `int4`."""
    max_length: int
    """Tokens after which every backend truncates a row."""
    inputs: list[TensorInfo]
    """Inputs of each graph."""
    outputs: list[TensorInfo]
    """Outputs of each graph."""
    parity: dict[str, ParityRecord]
    """Step -> differences of its graph from PyTorch."""
    calibration: CalibrateRecord | None
    """The calibration; null in a bundle without one."""
    cascade: NotRequired[CascadeRecord]
    """The first stage that answers before this model; missing in a bundle of one model."""
    lm: NotRequired[LanguageModelRecord]
    """What generation needs to know; only of a language model."""
    recipe: dict[str, Any]
    """Options that the bundle was built with, by their names with `_` for `-`; those without a value are left out."""
    versions: dict[str, str | None]
    """Package -> version that the bundle was built with."""
    steps: dict[str, StepRecord]
    """Step -> what it made; an engine's step is named after its folder, `plans/sm75-trt10.16.1.11`."""
    artefacts: dict[str, str]
    """File -> SHA-256."""
    created: str
    """Time of the last change, ISO 8601, UTC."""
    sha256: str
    """Digest of everything else in this file: `--trust` pins it."""


class BuildRecord(TypedDict):
    """What `toolchain build --json` prints."""

    bundle: str
    """Path of the bundle."""
    precision: str
    """Number type: `fp32`, `fp16`, `int8` or `fp8`."""
    would_do: NotRequired[list[str]]
    """Steps that a build would run (`--dry-run`; the keys below are then missing)."""
    up_to_date: NotRequired[bool]
    """Whether nothing had to be done."""
    done: NotRequired[list[str]]
    """Steps that were run."""
    skipped: NotRequired[list[str]]
    """Steps whose inputs had not changed."""
    artefacts: NotRequired[list[str]]
    """Files of the bundle."""
    export: NotRequired[ExportRecord | LanguageModelExport]
    """Record of this step."""
    cpu: NotRequired[CpuRecord]
    """Record of this step."""
    half: NotRequired[HalfRecord]
    """Record of this step."""
    cuda: NotRequired[CudaRecord]
    """Record of this step."""
    calibrate: NotRequired[CalibrateRecord]
    """Record of this step."""
    quantize: NotRequired[QuantizeRecord]
    """Record of this step."""
    weights: NotRequired[WeightsRecord]
    """Record of this step, of a language model."""
    rtx: NotRequired[ViewRecord]
    """Record of this step."""
    trt8: NotRequired[ViewRecord]
    """Record of this step."""
    engine: NotRequired[PlanRecord]
    """The first engine's record, as in its `plan.json`."""
    engines: NotRequired[list[PlanRecord]]
    """The records of all engines: `--backend trt-rtx` builds one for each target."""
    lacks: NotRequired[str]
    """Why there is no engine although `--backend` asked for one."""
    gate: NotRequired[list[NamedComparison]]
    """Comparisons of the bundle's graphs with FP32 (`--max-drop`)."""
    deploy: NotRequired[Deployment]
    """The artefact that the gate allows to deploy (`--max-drop`)."""
    next: NotRequired[str]
    """The next command of a build without a gate."""
