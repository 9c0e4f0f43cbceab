"""The JSON that the standalone service sends and logs, and what `toolchain serve --json` prints.

The names are those of the Open Inference Protocol (KServe V2) and of Triton's extensions: model configuration,
statistics, model repository. The gRPC messages have the same fields.
"""

from typing import Literal, NotRequired, TypedDict

from toolchain.records.prediction import Entities, LabelSet, Vector
from toolchain.records.result import ArtefactDigest


class Endpoints(TypedDict):
    """The addresses of a service, which `toolchain serve --json` prints as one line when it accepts requests."""

    name: str
    """Name of the model in requests."""
    http: str
    """URL of the HTTP server, such as http://127.0.0.1:8000."""
    grpc: str | None
    """Address of the gRPC server, such as 127.0.0.1:8001; null if gRPC is off."""
    example: dict[str, str]
    """An example request for `POST /classify`: a row of the task's data if they are on this machine, else a built-in
    text."""


class Classification(TypedDict):
    """The predicted label of one text or pair: the response of `POST /classify`, or one element of it."""

    label: str | None
    """Name of the class with the highest score; null for a regression."""
    score: float
    """Softmax probability of this class, 0 to 1; for a regression, the predicted value."""
    scores: NotRequired[dict[str, float]]
    """Name of every class -> its score; absent for a regression."""
    truncated: NotRequired[bool]
    """True if the text was longer than the model's maximum length and was truncated; absent otherwise."""
    stage: NotRequired[Literal["first", "second"]]
    """Stage of the cascade that answered the row; absent if the model is not a cascade or the row came from the
    cache."""


# The response of `POST /classify` to one text or pair.
Response = Classification | LabelSet | Vector | Entities


class EmbeddedText(TypedDict):
    """The vector of one text, in the response of `POST /v1/embeddings`."""

    object: Literal["embedding"]
    """Type of this object, which OpenAI's clients expect."""
    index: int
    """Index of the text in the request, from 0."""
    embedding: list[float] | str
    """The vector as a list of numbers; with `encoding_format` base64, its little-endian float32 values in base64."""
    truncated: NotRequired[bool]
    """True if the text was longer than the model's maximum length and was truncated; absent otherwise."""


class TokenUsage(TypedDict):
    """Number of tokens that a request of `POST /v1/embeddings` used."""

    prompt_tokens: int
    """Number of tokens of all texts, without padding."""
    total_tokens: int
    """Equal to `prompt_tokens`, because no tokens are generated."""


class EmbeddingsResponse(TypedDict):
    """The response of `POST /v1/embeddings`, in OpenAI's format."""

    object: Literal["list"]
    """Type of this object, which OpenAI's clients expect."""
    data: list[EmbeddedText]
    """One entry for each text, in the order of the request."""
    model: str
    """Name of the model in requests."""
    usage: TokenUsage
    """Number of tokens that the request used."""


class EmbeddingsErrorDetail(TypedDict):
    """Why a request to `POST /v1/embeddings` was refused."""

    message: str
    """The reason, as a sentence."""
    type: str
    """`invalid_request_error` if the client can correct the request, else `server_error`."""
    param: None
    """Always null; `message` names the parameter."""
    code: str | None
    """`model_not_found`, `invalid_api_key`, or null for other errors."""


class EmbeddingsError(TypedDict):
    """The error response of `POST /v1/embeddings`, in OpenAI's format."""

    error: EmbeddingsErrorDetail
    """Why the request was refused."""


class RerankError(TypedDict):
    """The error response of `POST /rerank`, in the format of text-embeddings-inference."""

    error: str
    """The reason, as a sentence."""
    error_type: str
    """`validation` if the client can correct the request; `overloaded`; or `backend` for other errors of the
    service."""


class RankedText(TypedDict):
    """One text in the response of `POST /rerank`, in the format of text-embeddings-inference.

    The texts are sorted by relevance, the best first.
    """

    index: int
    """Index of the text in the request, from 0."""
    score: float
    """Relevance of the text: the sigmoid of the model's logit, 0 to 1; with `raw_scores`, the logit itself."""
    text: NotRequired[str]
    """The text itself; only if the request has `return_text`."""
    truncated: NotRequired[bool]
    """True if query and text were longer than the model's maximum length and were truncated; absent otherwise."""


class ServiceInfo(TypedDict):
    """The response of `GET /info`: the model that is served, and example requests."""

    name: str
    """Name of the model in requests."""
    labels: list[str]
    """Names of the classes, in the order of the logits; empty for a regression."""
    precision: str
    """Precision of the model: `fp32`, `fp16`, `bf16`, `int8` and so on."""
    backend: str
    """Backend that runs the model: `ort`, `trt`, `trt-rtx` or `ort-trt`."""
    device: str
    """Device that the model runs on: `cpu` or `cuda:N`."""
    artefact: ArtefactDigest
    """File of the bundle that is served, and its digest."""
    bundle_sha256: str
    """Digest of the bundle, which `--trust` takes."""
    examples: list[dict[str, str]]
    """Example requests for `POST /classify`: rows of the task's data if they are on this machine, else built-in
    texts."""


class RequestLine(TypedDict):
    """One line of the log of `toolchain serve --log json`, for one request over HTTP or gRPC."""

    time: str
    """Time at which the request arrived, ISO 8601, UTC, with milliseconds."""
    id: str
    """Id that the service gave the request. The response has it in the header X-Request-Id."""
    method: str
    """The HTTP method; `gRPC` for a gRPC call."""
    path: str | None
    """Path of the request. Null if the service does not have this path, because the client may have put a secret
    there."""
    status: int
    """HTTP status of the response, also for gRPC: 200, or the status of the refusal; 499 if the client disconnected
    before the response."""
    rows: int | None
    """Number of rows in the request; null if it has none or was refused before they were counted."""
    tokens: int | None
    """Number of tokens in all rows, without padding; null if nothing was tokenized."""
    queue_ms: float | None
    """Time that the request waited in the queue, ms; null if no inference ran."""
    compute_ms: float | None
    """Time for tokenization, inference and output, ms; null if no inference ran."""
    duration_ms: float
    """Time from the arrival of the request's headers to the end of the response, ms."""


class ServerMetadata(TypedDict):
    """The response of `GET /v2`: the server and the protocol extensions that it supports."""

    name: str
    """Name of the server: always `toolchain`."""
    version: str
    """Version of the toolchain."""
    extensions: list[str]
    """Extensions of the Open Inference Protocol that the service supports."""


class TensorMetadata(TypedDict):
    """An input or output of the model."""

    name: str
    """Name of the tensor in requests and responses."""
    datatype: str
    """Datatype in the protocol's terms, such as BYTES, INT64 or FP32."""
    shape: list[int]
    """Shape of the tensor; -1 for a dimension that the client chooses."""


class Parameter(TypedDict):
    """The value of one parameter of the model."""

    string_value: str
    """The value, as text."""


class ModelMetadata(TypedDict):
    """The response of `GET /v2/models/NAME`: the model's inputs and outputs."""

    name: str
    """Name of the model in requests."""
    versions: list[str]
    """Versions of the model that are served: always only `1`."""
    platform: str
    """`toolchain_` followed by the backend, such as `toolchain_ort`."""
    inputs: list[TensorMetadata]
    """The text inputs, then the token id inputs. A request sends either texts or token ids."""
    outputs: list[TensorMetadata]
    """Outputs of the model, such as LABEL, SCORE and LOGITS."""


class ConfigTensor(TypedDict):
    """An input or output in the model's configuration, in Triton's format."""

    name: str
    """Name of the tensor in requests and responses."""
    data_type: str
    """Triton's data type, such as TYPE_STRING."""
    dims: list[int]
    """Shape of the tensor without the batch dimension; -1 for a dimension that the client chooses."""
    optional: NotRequired[bool]
    """Always true, because a request sends either texts or token ids. Only for inputs."""


class QueuePolicy(TypedDict):
    """Limits of the request queue."""

    timeout_action: str
    """Always REJECT: a request that waits too long is refused."""
    default_timeout_microseconds: int
    """Longest time that a request may wait in the queue, microseconds."""
    allow_timeout_override: bool
    """Always true: a request may ask for a shorter waiting time."""
    max_queue_size: int
    """Largest number of rows that may wait in the queue."""


class DynamicBatching(TypedDict):
    """How the service combines requests into batches."""

    max_queue_delay_microseconds: int
    """Always 0: if an engine is idle, a request does not wait for further requests."""
    default_queue_policy: QueuePolicy
    """Limits of the service's only queue."""


class TransactionPolicy(TypedDict):
    """How many responses a request has."""

    decoupled: bool
    """Always false: each request has exactly one response."""


class ModelConfig(TypedDict):
    """The response of `GET /v2/models/NAME/config`: the model's configuration in Triton's format."""

    name: str
    """Name of the model in requests."""
    platform: str
    """`toolchain_` followed by the backend, such as `toolchain_ort`."""
    backend: str
    """Name of the backend in Triton's terms: always `toolchain`."""
    max_batch_size: int
    """Largest number of rows in a request, and in a batch."""
    input: list[ConfigTensor]
    """The text inputs, then the token id inputs."""
    output: list[ConfigTensor]
    """Outputs of the model, such as LABEL, SCORE and LOGITS."""
    dynamic_batching: DynamicBatching
    """How the service combines requests into batches."""
    model_transaction_policy: TransactionPolicy
    """How many responses a request has."""
    parameters: dict[str, Parameter]
    """Other facts about the model. `bundle_sha256`: digest of the bundle that is served."""


class Duration(TypedDict):
    """A sum of durations, with the number of them."""

    count: int
    """Number of durations in the sum."""
    ns: int
    """Sum of the durations, in nanoseconds."""


class InferenceDurations(TypedDict):
    """The time that requests spent in each phase, added up since the service started."""

    success: Duration
    """Whole time of successful requests, from arrival to response."""
    fail: Duration
    """Whole time of failed requests, from arrival to refusal."""
    queue: Duration
    """Time that requests waited for an engine."""
    compute_input: Duration
    """Time for tokenizing texts and building batches."""
    compute_infer: Duration
    """Time in the engine."""
    compute_output: Duration
    """Time for turning logits into labels and scores."""
    cache_hit: Duration
    """Number of rows that were found in the cache, and the time to look them up; 0 without a cache."""
    cache_miss: Duration
    """Number of rows that were not found in the cache, and the time to look them up; 0 without a cache."""


class ModelStatistics(TypedDict):
    """Counters of the model since the service started."""

    name: str
    """Name of the model in requests."""
    version: str
    """Version of the model: always `1`."""
    last_inference: int
    """Time of the last successful request, in milliseconds since 1970-01-01 UTC; 0 if there was none."""
    inference_count: int
    """Number of rows in successful requests."""
    execution_count: int
    """Number of batches that the engines ran."""
    inference_stats: InferenceDurations
    """The time that requests spent in each phase."""
    batch_stats: list[object]
    """Always empty, because times are not recorded by batch size."""


class StatisticsResponse(TypedDict):
    """The response of `GET /v2/models/NAME/stats`: the counters of the model."""

    model_stats: list[ModelStatistics]
    """Counters of the model, as a list with one element."""


class ModelState(TypedDict):
    """The state of the model: one element of the response of `POST /v2/repository/index`."""

    name: str
    """Name of the model in requests."""
    version: str
    """Version of the model: always `1`."""
    state: str
    """`READY`; or `UNAVAILABLE` if the service is shutting down or has no working engine."""
