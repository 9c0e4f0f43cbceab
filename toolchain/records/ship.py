"""What `toolchain ship` and `push` print with --json, and the JSON files of a Triton model repository.

An ensemble is Triton's term for a model that calls other models: here a tokenizer, a classifier, and others as needed.
It is the model that clients send requests to.
"""

from typing import Literal, NotRequired, TypedDict

from toolchain.records.plan import PlanRecord, ProfileRecord

# What runs the model: a TensorRT plan, Triton's ONNX Runtime backend, or ONNX Runtime in Python.
Backend = Literal["trt", "ort", "python"]


class TensorRecord(TypedDict):
    """One input or output tensor of a graph."""

    name: str
    """Name of the tensor."""
    data_type: str
    """Triton's name of the data type, such as TYPE_INT32."""
    dims: list[int]
    """Size of each dimension, the batch dimension included; -1 for a dynamic dimension."""


# Functional syntax because the key `from` is a Python keyword.
ShippedFile = TypedDict(
    "ShippedFile",
    {
        # Path of the file in the bundle.
        "from": str,
        # SHA-256 of the copy, hexadecimal.
        "sha256": str,
    },
)
ShippedFile.__doc__ = "The origin of a file in the model repository: a file of the bundle."


class StartRecord(TypedDict):
    """What a server needs to run the models of a repository."""

    image: str
    """Container image that can run the models."""
    tensorrt: str | None
    """Version of TensorRT that the image must contain; null if no model is a plan."""
    flags: list[str]
    """Arguments that the server needs for these models, besides --model-repository."""
    line: str
    """Shell command that starts a server with the repository."""


class TritonRecord(TypedDict):
    """What `toolchain ship triton` prints."""

    repository: str
    """Path of the model repository."""
    model: str
    """Name of the model that clients send requests to."""
    version: int
    """Number of the version that was written."""
    kept_versions: list[int]
    """Numbers of other versions of the model that were already in the repository and were kept."""
    backend: Backend
    """Backend that runs the model: `trt`, a TensorRT plan; `ort`, Triton's ONNX Runtime backend; `python`, ONNX Runtime
    in Triton's Python backend."""
    max_batch: int
    """Largest number of rows in a batch."""
    buckets: list[int]
    """Numbers of tokens per row to which the tokenizer pads. It chooses the smallest that is long enough."""
    files: dict[str, ShippedFile]
    """Name of a file in the classifier's version folder -> its origin in the bundle."""
    start: StartRecord
    """What a server needs to run the models."""


class TokenizerOutput(TypedDict):
    """One output tensor of the tokenizer model in a repository."""

    name: str
    """Name of the output tensor."""
    attribute: str
    """Attribute of an `Encoding` of the `tokenizers` library from which the values are taken, such as `ids`."""
    dtype: str
    """NumPy data type of the tensor, such as `int32`."""
    pad: int
    """Value at padded positions."""


class TokenizerSettings(TypedDict):
    """The content of settings.json, which the tokenizer model of a repository reads at start."""

    texts: list[str]
    """Names of the text inputs: TEXT, and for text pairs also TEXT_PAIR."""
    outputs: list[TokenizerOutput]
    """The output tensors of the tokenizer model."""
    buckets: list[int]
    """Numbers of tokens per row to which the tokenizer pads. It chooses the smallest that is long enough."""
    max_characters: int
    """Largest number of characters in a text; longer texts are refused."""
    split_special_tokens: bool
    """Whether a special token that is written in a text, such as `[SEP]`, is read as plain text."""
    equal_length: bool
    """Whether all texts of a request must have the same number of tokens, because padding would change the model's
    logits."""
    spans: NotRequired[bool]
    """True if the tokenizer also outputs the character offsets of the tokens, from which the decoder finds entities;
    absent otherwise."""


class CascadeStage(TypedDict):
    """A stage of a cascade that is a model in the repository."""

    model: str
    """Name of the model in the repository."""
    inputs: dict[str, str]
    """Name of an input of the model -> its NumPy data type."""
    buckets: list[int]
    """Numbers of tokens per row to which batches for the model are padded."""


class CascadeSettings(TypedDict):
    """The content of stages.json, which the cascade model of a repository reads at start."""

    name: str
    """Name of the model that clients send requests to."""
    threshold: float
    """Smallest difference of the first stage's two highest logits at which the first stage answers a row."""
    vocabulary: int
    """Number of token ids in the vocabulary."""
    stages: dict[str, CascadeStage]
    """`second` -> the classifier; `first` -> the model of the first stage, absent if the first stage is lexical."""


class ModelIdentity(TypedDict):
    """The checkpoint that a bundle was built from."""

    id: str
    """Hub id or path of the checkpoint."""
    sha256: dict[str, str]
    """Name of a file of the checkpoint -> its SHA-256, hexadecimal."""


class Provenance(TypedDict):
    """The content of provenance.json in each version of an ensemble: what its models were made from."""

    schema: Literal[1]
    """Version of this file format."""
    bundle_sha256: str
    """Digest of the bundle that was shipped."""
    model: ModelIdentity
    """The checkpoint that the bundle was built from."""
    task: str
    """Name of the task."""
    precision: str
    """Precision of the bundle: fp32, fp16, bf16 or int8."""
    max_length: int
    """Number of tokens to which a row is truncated."""
    labels: list[str]
    """Names of the labels, in the order of the logits."""
    version: int
    """Number of this version in the repository."""
    backend: Backend
    """Backend that runs the model: `trt`, `ort` or `python`."""
    tensorrt: str | None
    """Version of TensorRT that built the plans; null if no model is a plan."""
    image: str
    """Container image that can run the models."""
    files: dict[str, ShippedFile]
    """Name of a file in the classifier's version folder -> its origin in the bundle."""
    first_files: NotRequired[dict[str, ShippedFile]]
    """Name of a file in the version folder of the cascade's first stage -> its origin in the bundle; absent without a
    cascade."""
    profiles: list[ProfileRecord]
    """Optimisation profiles of the plans; empty if no model is a plan."""
    inputs: list[TensorRecord]
    """Inputs of the graph."""
    outputs: list[TensorRecord]
    """Outputs of the graph."""
    versions: dict[str, str | None]
    """Name of a package -> its version when the repository was written; null if it was not installed."""
    created: str
    """Time at which the repository was written, ISO 8601, UTC."""


class PlanTensors(TypedDict):
    """The inputs and outputs of a shipped plan."""

    inputs: list[TensorRecord]
    """Inputs of the graph that the plan was built from."""
    outputs: list[TensorRecord]
    """Outputs of the graph that the plan was built from."""


class ShippedPlan(PlanRecord):
    """The record beside a shipped plan: the bundle's plan.json, with the plan's inputs and outputs."""

    tensors: NotRequired[PlanTensors]
    """Inputs and outputs of the plan; absent if plan.json was copied from a bundle by hand."""


class FindingRecord(TypedDict):
    """One problem in a model repository that `toolchain ship triton --lint` found."""

    level: Literal["error", "warning"]
    """`error`: a model does not load or gives wrong results; `warning`: it works, but badly, such as slowly."""
    where: str
    """The model that has the problem, or the file of the model."""
    what: str
    """Description of the problem."""
    do: str
    """How to fix it."""


class LintRecord(TypedDict):
    """What `toolchain ship triton --lint` prints."""

    repository: str
    """Path of the model repository."""
    models: int
    """Number of models that were checked."""
    errors: int
    """Number of errors."""
    warnings: int
    """Number of warnings."""
    findings: list[FindingRecord]
    """The problems, errors first."""


class ServiceRecord(TypedDict):
    """What `toolchain ship service` and `toolchain ship image` print."""

    path: NotRequired[str]
    """Folder with the files of the service; absent for `ship image`."""
    name: str
    """Name of the model that clients send requests to."""
    image: str
    """Name of the container image."""
    sha256: str
    """Digest of the bundle that was shipped."""
    next: str
    """Shell command that starts the service."""


class PushRecord(TypedDict):
    """What `toolchain push` prints."""

    repository: str
    """Name of the repository on the hub: `user/name`."""
    private: bool
    """Whether the repository is created as private, if it does not exist yet."""
    files: list[str]
    """Names of the files that are uploaded."""
    left_out: list[str]
    """Names of the artefacts that are not uploaded: TensorRT plans, which run on one GPU model only."""
    bytes: int
    """Total size of the uploaded artefacts, in bytes."""
    sha256: str
    """Digest of the uploaded bundle. It differs from the digest of the local bundle if plans, local paths or row
    digests were removed for the upload."""
    where: str | None
    """URL of the commit on the hub, or the folder given with `-o`; null with `--dry-run`."""
