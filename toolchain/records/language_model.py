"""The bundle of a language model (`build --task lm`): what generation needs to know, and weight-only quantization."""

from typing import Literal, TypedDict

from toolchain.records.result import ArtefactDigest, Environment


class LanguageModelFacts(TypedDict):
    """What generation needs to know of a checkpoint."""

    positions: int | None
    """Positions that the model was made for; null if its config.json states none."""
    vocabulary: int
    """Number of token ids."""
    end_ids: list[int]
    """Token ids that end a text."""
    not_followed: list[str]
    """Settings of the checkpoint's generation_config.json that a graph's greedy search does not follow."""


class LanguageModelRecord(LanguageModelFacts):
    """The key `lm` of the manifest of a language model's bundle."""

    step_bytes: dict[str, int]
    """Graph -> bytes of the weights that a step reads, by count: all but the tables of which it gathers a row."""


class WeightOnlyGemm(TypedDict):
    """A GEMM with a constant weight."""

    name: str
    """Name of the weight."""
    weights: int
    """Numbers that the weight holds."""
    bits: int | None
    """Bits of each in the graph; null if it stayed in float32."""
    reason: str | None
    """Why it stayed in float32; null if it did not."""


class WeightsRecord(TypedDict):
    """Step `weights`: `model.onnx` to `model.int8.onnx` or `model.int4.onnx`."""

    bits: int
    """Bits of a quantized weight."""
    block: int
    """Weights that share a scale and a zero point."""
    share: float
    """Share of the weights in GEMMs that were quantized, 0 to 1; a build with less than 0.9 is refused."""
    products: list[WeightOnlyGemm]
    """Every GEMM with a constant weight, in graph order."""


class Rise(TypedDict):
    """The perplexity of the FP32 graph on the same documents, and how much higher that of the typed graph is."""

    artefact: str
    """The FP32 graph: `model.onnx`."""
    perplexity: float
    """Its perplexity."""
    ratio: float
    """Perplexity of the typed graph over it."""
    ratio_ci95: list[float] | None
    """95 % bootstrap interval of the ratio over documents, drawn in pairs; null with fewer than two documents."""
    verdict: Literal["higher", "lower", "cannot tell"]
    """Whether the interval is above 1, below 1, or holds it."""


class PerplexityResult(TypedDict):
    """What `toolchain eval --json` prints for the bundle of a language model, and saves in its `results/`."""

    schema: int
    """Version of this format: 1."""
    task: str
    """`lm`."""
    split: str
    """Split that was evaluated."""
    documents: int
    """Documents of the split."""
    data_sha256: str
    """Digest of the documents."""
    model: str
    """Checkpoint of the bundle."""
    backend: str
    """`ort`."""
    device: str
    """Device, such as cpu or cuda:0."""
    precision: str
    """Type of the weights: fp32, int8 or int4."""
    artefact: ArtefactDigest
    """Graph that ran."""
    perplexity: float
    """Exponential of the mean negative log probability, nats, of a token."""
    perplexity_ci95: list[float] | None
    """95 % bootstrap interval over documents; null with fewer than two documents."""
    tokens_scored: int
    """Tokens with a probability: all of each document but its first."""
    max_length: int
    """Tokens of a window; a longer document is cut, and each window begins with the last token of the one before."""
    reference: Rise | None
    """Comparison with the FP32 graph; null for that graph itself."""
    environment: Environment
    """Versions and hardware."""
    seed: int
    """Seed of the bootstrap."""
    created: str
    """Time of the evaluation, ISO 8601, UTC."""
    file: str
    """Path of the saved result."""


class ExplainedWeights(TypedDict):
    """The output of `toolchain explain --json` for the bundle of a language model."""

    artefact: str
    """Path of the graph."""
    precision: str
    """Type of its weights: fp32, int8 or int4."""
    share: float
    """Share of the weights in GEMMs that are quantized, 0 to 1."""
    step_bytes: int
    """Bytes of the weights that a step reads, by count."""
    fp32_step_bytes: int
    """The same of `model.onnx`."""
    products: list[WeightOnlyGemm]
    """Every GEMM with a constant weight, in graph order."""
    advice: list[str]
    """What to do, most important first."""


class CompiledPass(TypedDict):
    """A pass of a language model as TensorRT-RTX compiles it for one GPU and one shape."""

    phase: Literal["prompt", "step"]
    """`prompt`: all tokens are new, and the cache is empty; `step`: one token is new."""
    precision: str
    """Type of the weights in GEMMs: `fp16`, `int8` (a scale an output channel) or `int4` (symmetric blocks)."""
    refused: str | None
    """Why the compiler makes no plan; null if it does."""
    kernels: int
    """Number of kernels."""
    gemms: dict[str, int]
    """Types of both operands, such as `fp16 x int4`, to the number of kernels that multiply them, without attention."""
    fused_attention: int
    """Number of kernels that compute the whole attention of a layer."""
    bytes: int | None
    """Bytes that all kernels read and write; null if it is refused."""
    us: float | None
    """Lower bound of the time, microseconds, by the data sheet: the sum over the kernels; null if it is refused."""


class ExplainedPasses(TypedDict):
    """The output of `toolchain explain --target --json` for the bundle of a language model."""

    bundle: str
    """Path of the bundle."""
    target: str
    """The target, such as `t4`."""
    sm: int
    """Its compute capability, times ten."""
    gpu: str
    """Name of the GPU whose data sheet gives the bounds."""
    source: str
    """That data sheet."""
    compiler: str
    """Name and version of the compiler."""
    batch: int
    """Rows in the batch."""
    length: int
    """Tokens of each row: of the prompt, and in the cache of the step."""
    passes: list[CompiledPass]
    """Prompt and step in float16, then with weights in the bundle's precision, if that is INT8 or INT4."""
    answer: str
    """What follows for a step, in sentences."""
    created: str
    """Time of the compilation, ISO 8601, UTC."""
