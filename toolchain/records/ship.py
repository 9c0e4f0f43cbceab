"""The records of `toolchain ship`: what it prints with --json, and the JSON files of a Triton model repository."""

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
    """Sizes of all dimensions, the batch included; -1 for a dynamic one."""


# Functional syntax because the key `from` is a Python keyword.
ShippedFile = TypedDict(
    "ShippedFile",
    {
        # Path of the file in the bundle.
        "from": str,
        # SHA-256 of the file, hexadecimal.
        "sha256": str,
    },
)
ShippedFile.__doc__ = "One file of the bundle that was copied into the repository."


class StartRecord(TypedDict):
    """What the models of a repository need from a server."""

    image: str
    """Container image that can run the models."""
    tensorrt: str | None
    """Version of TensorRT that the image must contain; null without a plan."""
    flags: list[str]
    """Arguments that these models need beside --model-repository."""
    line: str
    """Shell command that serves the repository."""


class TritonRecord(TypedDict):
    """What `toolchain ship triton` prints."""

    repository: str
    """Path of the model repository."""
    model: str
    """Name of the model that clients send requests to."""
    version: int
    """Version that was written."""
    kept_versions: list[int]
    """Other versions that existed and were kept."""
    backend: Backend
    """What runs the model: a TensorRT plan, Triton's ONNX Runtime backend, or ONNX Runtime in Python."""
    max_batch: int
    """Largest batch, in rows."""
    buckets: list[int]
    """Sequence lengths, in tokens, to which the tokenizer pads."""
    files: dict[str, ShippedFile]
    """File name in the version folder of the classifier -> its origin."""
    start: StartRecord
    """How to start a server."""


class TokenizerOutput(TypedDict):
    """One tensor that the tokenizer model of a repository produces."""

    name: str
    """Name of the tensor."""
    attribute: str
    """Attribute of an encoding of the `tokenizers` library that holds the values."""
    dtype: str
    """Name of the NumPy data type."""
    pad: int
    """Value of padded positions."""


class TokenizerSettings(TypedDict):
    """The file settings.json of the tokenizer model."""

    texts: list[str]
    """Names of the text inputs: TEXT, and TEXT_PAIR for pairs."""
    outputs: list[TokenizerOutput]
    """Tensors that the tokenizer produces."""
    buckets: list[int]
    """Sequence lengths, in tokens, to which the tokenizer pads."""
    max_characters: int
    """Longest accepted text, in characters."""
    split_special_tokens: bool
    """Whether a special token that is written in a text is text."""
    equal_length: bool
    """Whether the texts of a request must be equally long, in tokens, because the model's answers depend on padding."""
    spans: NotRequired[bool]
    """True if the decoder gets the places of the tokens in the text, for entities; absent if it does not."""


class CascadeStage(TypedDict):
    """A stage of a cascade that is a model of the repository."""

    model: str
    """Name of the model."""
    inputs: dict[str, str]
    """Name of each of its inputs -> NumPy's type of its numbers."""
    buckets: list[int]
    """Sequence lengths, in tokens, of its batches."""


class CascadeSettings(TypedDict):
    """The file stages.json of the model of a cascade."""

    name: str
    """Name of the model that clients send requests to."""
    threshold: float
    """The margin of the two highest logits of the first stage from which its answer counts."""
    vocabulary: int
    """Number of token ids."""
    stages: dict[str, CascadeStage]
    """second -> the classifier, and first -> the model of the first stage; absent for a lexical stage."""


class ModelIdentity(TypedDict):
    """The checkpoint that a bundle was built from."""

    id: str
    """Name or path of the checkpoint."""
    sha256: dict[str, str]
    """File of the checkpoint -> SHA-256, hexadecimal."""


class Provenance(TypedDict):
    """The file provenance.json in each version of an ensemble."""

    schema: Literal[1]
    """Version of this file format."""
    bundle_sha256: str
    """Digest of the bundle."""
    model: ModelIdentity
    """The checkpoint."""
    task: str
    """Name of the task."""
    precision: str
    """Precision of the bundle: fp32, fp16, bf16 or int8."""
    max_length: int
    """Longest sequence, in tokens."""
    labels: list[str]
    """Labels in the order of the logits."""
    version: int
    """Version of the model in the repository."""
    backend: Backend
    """What runs the model."""
    tensorrt: str | None
    """Version of TensorRT that built the plans; null without a plan."""
    image: str
    """Container image that can run the models."""
    files: dict[str, ShippedFile]
    """File name in the version folder of the classifier -> its origin."""
    first_files: NotRequired[dict[str, ShippedFile]]
    """The same of the model of the first stage; absent without one."""
    profiles: list[ProfileRecord]
    """Optimisation profiles of the plans; empty without a plan."""
    inputs: list[TensorRecord]
    """Inputs of the graph."""
    outputs: list[TensorRecord]
    """Outputs of the graph."""
    versions: dict[str, str | None]
    """Package -> version with which the repository was written; null where it is not installed."""
    created: str
    """UTC time of writing, ISO 8601."""


class PlanTensors(TypedDict):
    """The tensors of a shipped plan."""

    inputs: list[TensorRecord]
    """Inputs of the graph that the plan was built from."""
    outputs: list[TensorRecord]
    """Outputs of that graph."""


class ShippedPlan(PlanRecord):
    """The record beside a shipped plan: plan.json of the bundle, and the plan's tensors."""

    tensors: NotRequired[PlanTensors]
    """Tensors of the plan; may be missing where the record was copied from a bundle by hand."""


class FindingRecord(TypedDict):
    """One fault that `toolchain ship triton --lint` reports."""

    level: Literal["error", "warning"]
    """error: a model does not load or gives wrong results; warning: it serves badly."""
    where: str
    """The model, or a file of it."""
    what: str
    """The fault."""
    do: str
    """What fixes it."""


class LintRecord(TypedDict):
    """What `toolchain ship triton --lint` prints."""

    repository: str
    """Path of the model repository."""
    models: int
    """Number of models."""
    errors: int
    """Number of errors."""
    warnings: int
    """Number of warnings."""
    findings: list[FindingRecord]
    """The faults, errors first."""


class ServiceRecord(TypedDict):
    """What `toolchain ship service` and `toolchain ship image` print."""

    path: NotRequired[str]
    """Folder of the service; absent for an image."""
    name: str
    """Name of the model that clients send requests to."""
    image: str
    """Name of the container image."""
    sha256: str
    """Digest of the bundle."""
    next: str
    """Shell command that starts the service."""


class PushRecord(TypedDict):
    """What `toolchain push` prints."""

    repository: str
    """Repository on the hub: `user/name`."""
    private: bool
    """Whether a repository that does not exist yet is created as a private one."""
    files: list[str]
    """Files that are uploaded."""
    left_out: list[str]
    """Artefacts that are not uploaded: plans."""
    bytes: int
    """Size of the artefacts that are uploaded."""
    sha256: str
    """Digest of the uploaded bundle, which differs from the local one where plans, paths or digests of rows were left
    out."""
    where: str | None
    """Address of the commit, or the folder of `-o`; null for a dry run."""
