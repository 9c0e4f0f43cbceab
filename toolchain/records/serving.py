"""The JSON that the standalone service sends, and what `toolchain serve --json` prints.

The names are those of the Open Inference Protocol (KServe V2) and of Triton's extensions: model configuration,
statistics, model repository. The gRPC messages have the same fields.
"""

from typing import Literal, NotRequired, TypedDict

from toolchain.records.prediction import Entities, LabelSet, Vector
from toolchain.records.result import ArtefactDigest


class Endpoints(TypedDict):
    """Where a model is served: the line that `toolchain serve --json` prints when it accepts requests."""

    name: str
    """The model's name in requests."""
    http: str
    """URL of the HTTP server, such as http://127.0.0.1:8000."""
    grpc: str | None
    """Address of the gRPC server, such as 127.0.0.1:8001; null without gRPC."""
    example: dict[str, str]
    """A request for `POST /classify`, from the model's own data if they lie on this machine."""


class Classification(TypedDict):
    """The label of one text or pair: the response of `POST /classify`, or one element of it."""

    label: str | None
    """The class with the highest score; null for regression."""
    score: float
    """Softmax probability of that class, 0 to 1; for regression, the predicted value."""
    scores: NotRequired[dict[str, float]]
    """Label -> score, of all classes; absent for regression."""
    truncated: NotRequired[bool]
    """True if the text is longer than the model reads; absent if it is not."""
    stage: NotRequired[Literal["first", "second"]]
    """The stage of a cascade that answered the row; absent for another model, and for a row from the cache."""


# The response of `POST /classify` to one text or pair.
Response = Classification | LabelSet | Vector | Entities


class EmbeddedText(TypedDict):
    """One vector in the response of `POST /v1/embeddings`."""

    object: Literal["embedding"]
    """What it is, as OpenAI's clients expect it."""
    index: int
    """The place of the text in the request, from 0."""
    embedding: list[float] | str
    """The vector; with `encoding_format` base64, its little-endian float32 numbers in base64."""
    truncated: NotRequired[bool]
    """True if the text is longer than the model reads; absent if it is not."""


class TokenUsage(TypedDict):
    """The tokens of a request of `POST /v1/embeddings`."""

    prompt_tokens: int
    """Tokens of all texts, without padding."""
    total_tokens: int
    """The same."""


class EmbeddingsResponse(TypedDict):
    """The response of `POST /v1/embeddings`, in the form of OpenAI's."""

    object: Literal["list"]
    """What it is, as OpenAI's clients expect it."""
    data: list[EmbeddedText]
    """One vector for each text, in their order."""
    model: str
    """The model's name in requests."""
    usage: TokenUsage
    """The tokens that the model read."""


class EmbeddingsErrorDetail(TypedDict):
    """Why a request of `POST /v1/embeddings` was refused."""

    message: str
    """The reason, as a sentence."""
    type: str
    """`invalid_request_error` for what the client can change, else `server_error`."""
    param: None
    """The parameter, which the message names."""
    code: str | None
    """`model_not_found`, `invalid_api_key`, or null."""


class EmbeddingsError(TypedDict):
    """A refusal of `POST /v1/embeddings`, in the form of OpenAI's."""

    error: EmbeddingsErrorDetail
    """The reason."""


class RerankError(TypedDict):
    """A refusal of `POST /rerank`, in the form of text-embeddings-inference's."""

    error: str
    """The reason, as a sentence."""
    error_type: str
    """`validation` for what the client can change, `overloaded`, or `backend`."""


class RankedText(TypedDict):
    """One text in the response of `POST /rerank`, in the form of text-embeddings-inference's, best first."""

    index: int
    """The place of the text in the request, from 0."""
    score: float
    """The sigmoid of the model's number, 0 to 1; with `raw_scores`, the number itself."""
    text: NotRequired[str]
    """The text, with `return_text`."""
    truncated: NotRequired[bool]
    """True if query and text are longer than the model reads; absent if they are not."""


class ServiceInfo(TypedDict):
    """The response of `GET /info`: what is served, and rows to try it with."""

    name: str
    """The model's name in requests."""
    labels: list[str]
    """Names of the classes, in the order of the logits; empty for regression."""
    precision: str
    """Precision of the model: fp32, fp16, bf16, int8 and so on."""
    backend: str
    """What runs it: ort, trt, trt-rtx or ort-trt."""
    device: str
    """Where it runs: cpu, or cuda:N."""
    artefact: ArtefactDigest
    """The file of the bundle that runs, and its digest."""
    bundle_sha256: str
    """The digest of the bundle, as `--trust` takes it."""
    examples: list[dict[str, str]]
    """Requests for `POST /classify`: rows of the model's own data if they lie on this machine, else built-in ones."""


class RequestLine(TypedDict):
    """One line of `toolchain serve --log json`: a request over HTTP or gRPC."""

    time: str
    """When the request arrived, in UTC: ISO 8601 with milliseconds."""
    id: str
    """The service's own name of the request, which the response has in its header X-Request-Id."""
    method: str
    """The HTTP method; `gRPC` for a call over gRPC."""
    path: str | None
    """The path, if it is one of the service's own, else null: a client may have written a secret there."""
    status: int
    """The HTTP status, for gRPC too: 200, or that of the refusal; 499 if the client left before the response."""
    rows: int | None
    """Rows of the request; null if it has none or was refused before they were counted."""
    tokens: int | None
    """Tokens of all its rows, without padding; null if no text was tokenised."""
    queue_ms: float | None
    """Milliseconds in the queue; null without inference."""
    compute_ms: float | None
    """Milliseconds for tokens, engine and labels; null without inference."""
    duration_ms: float
    """Milliseconds from the request's head to the end of the response."""


class ServerMetadata(TypedDict):
    """The response of `GET /v2`."""

    name: str
    """Always `toolchain`."""
    version: str
    """The version of the toolchain."""
    extensions: list[str]
    """The extensions of the Open Inference Protocol that the service supports."""


class TensorMetadata(TypedDict):
    """An input or output of the model."""

    name: str
    """The tensor's name in requests and responses."""
    datatype: str
    """The protocol's datatype, such as BYTES, INT64 or FP32."""
    shape: list[int]
    """The sizes of the tensor; -1 is a size that the client chooses."""


class Parameter(TypedDict):
    """The value of one parameter of the model."""

    string_value: str
    """The value, as text."""


class ModelMetadata(TypedDict):
    """The response of `GET /v2/models/NAME`."""

    name: str
    """The model's name in requests."""
    versions: list[str]
    """The versions that are served: always 1 alone."""
    platform: str
    """`toolchain_` and the backend, such as toolchain_ort."""
    inputs: list[TensorMetadata]
    """Texts first, then token ids. A request sends one kind or the other."""
    outputs: list[TensorMetadata]
    """LABEL, SCORE and LOGITS."""


class ConfigTensor(TypedDict):
    """An input or output in the model's configuration."""

    name: str
    """The tensor's name in requests and responses."""
    data_type: str
    """Triton's data type, such as TYPE_STRING."""
    dims: list[int]
    """The sizes without the batch; -1 is a size that the client chooses."""
    optional: NotRequired[bool]
    """Only of inputs: true, because a request sends texts or token ids."""


class QueuePolicy(TypedDict):
    """What happens to requests that wait."""

    timeout_action: str
    """Always REJECT: a request that times out is refused."""
    default_timeout_microseconds: int
    """Longest wait in the queue, in microseconds."""
    allow_timeout_override: bool
    """True: a request may ask for a shorter wait."""
    max_queue_size: int
    """Rows that may wait."""


class DynamicBatching(TypedDict):
    """How requests are batched."""

    max_queue_delay_microseconds: int
    """Always 0: a request never waits for others while an engine is idle."""
    default_queue_policy: QueuePolicy
    """The policy of the one queue."""


class TransactionPolicy(TypedDict):
    """How responses relate to requests."""

    decoupled: bool
    """False: each request has exactly one response."""


class ModelConfig(TypedDict):
    """The response of `GET /v2/models/NAME/config`: Triton's ModelConfig."""

    name: str
    """The model's name in requests."""
    platform: str
    """`toolchain_` and the backend, such as toolchain_ort."""
    backend: str
    """Always `toolchain`."""
    max_batch_size: int
    """Rows of one request, and of one batch."""
    input: list[ConfigTensor]
    """Texts first, then token ids."""
    output: list[ConfigTensor]
    """LABEL, SCORE and LOGITS."""
    dynamic_batching: DynamicBatching
    """How requests are batched."""
    model_transaction_policy: TransactionPolicy
    """How responses relate to requests."""
    parameters: dict[str, Parameter]
    """`bundle_sha256`: the digest of the bundle that is served."""


class Duration(TypedDict):
    """A sum of times."""

    count: int
    """Requests that are summed."""
    ns: int
    """The sum, in nanoseconds."""


class InferenceDurations(TypedDict):
    """Where the time of requests went."""

    success: Duration
    """Successful requests, from arrival to response."""
    fail: Duration
    """Failed requests, from arrival to refusal."""
    queue: Duration
    """Waiting for an engine."""
    compute_input: Duration
    """Tokenising texts and building batches."""
    compute_infer: Duration
    """In the engine."""
    compute_output: Duration
    """Turning logits into labels and scores."""
    cache_hit: Duration
    """Rows found in the cache, and the time of their lookup; 0 without a cache."""
    cache_miss: Duration
    """Rows looked up in the cache and not found; 0 without a cache."""


class ModelStatistics(TypedDict):
    """The counters of the model since the service started."""

    name: str
    """The model's name in requests."""
    version: str
    """Always 1."""
    last_inference: int
    """Time of the last successful request, in milliseconds since 1970; 0 before the first."""
    inference_count: int
    """Rows of successful requests."""
    execution_count: int
    """Batches that engines ran."""
    inference_stats: InferenceDurations
    """Where the time of requests went."""
    batch_stats: list[object]
    """Always empty: times by batch size are not counted."""


class StatisticsResponse(TypedDict):
    """The response of `GET /v2/models/NAME/stats`."""

    model_stats: list[ModelStatistics]
    """One element: the one model."""


class ModelState(TypedDict):
    """One element of the response of `POST /v2/repository/index`."""

    name: str
    """The model's name in requests."""
    version: str
    """Always 1."""
    state: str
    """READY, or UNAVAILABLE while the service shuts down or has no working engine."""
