"""Records of a language model's bundle (`build --task lm`): facts for generation, weight-only quantization, perplexity.

A step is a pass that computes one new token for each row, after the first pass over the prompt.
"""

from typing import Literal, TypedDict

from toolchain.records.result import ArtefactDigest, Environment


class LanguageModelFacts(TypedDict):
    """Facts about a checkpoint that text generation needs."""

    positions: int | None
    """Largest number of positions (tokens of prompt and text) that the model supports; null if its config.json does not
    state it."""
    vocabulary: int
    """Number of token ids in the vocabulary."""
    end_ids: list[int]
    """Token ids that end the generated text."""
    not_followed: list[str]
    """Settings in the checkpoint's generation_config.json that this toolchain ignores, because it always generates
    greedily."""


class LanguageModelRecord(LanguageModelFacts):
    """The key `lm` in the manifest of a language model's bundle."""

    step_bytes: dict[str, int]
    """Name of a graph -> bytes of weights that a step has to read, as counted. Embedding tables, of which a step reads
    one row per token, are not included."""


class WeightOnlyGemm(TypedDict):
    """A GEMM with a constant weight, and whether the weight was quantized."""

    name: str
    """Name of the weight tensor."""
    weights: int
    """Number of elements of the weight tensor."""
    bits: int | None
    """Bits per weight in the graph; null if the weight stayed in float32."""
    reason: str | None
    """Why the weight stayed in float32; null if it was quantized."""


class WeightsRecord(TypedDict):
    """Step `weights`: makes `model.int8.onnx` or `model.int4.onnx` from `model.onnx`."""

    bits: int
    """Bits per quantized weight."""
    block: int
    """Block size: number of consecutive weights that share a scale and a zero point."""
    share: float
    """Fraction of the weights in GEMMs that were quantized, 0 to 1. A build fails if it is below 0.9."""
    products: list[WeightOnlyGemm]
    """Every GEMM with a constant weight, in graph order."""


class Rise(TypedDict):
    """How much higher the perplexity of a quantized graph is than that of the FP32 graph, on the same documents."""

    artefact: str
    """File name of the FP32 graph: `model.onnx`."""
    perplexity: float
    """Perplexity of the FP32 graph."""
    ratio: float
    """Perplexity of the quantized graph divided by that of the FP32 graph."""
    ratio_ci95: list[float] | None
    """95 % confidence interval of `ratio`, by a paired bootstrap over the documents; null with fewer than two
    documents."""
    verdict: Literal["higher", "lower", "cannot tell"]
    """`higher` if the whole interval is above 1, `lower` if it is below 1, `cannot tell` if it contains 1."""


class PerplexityResult(TypedDict):
    """What `toolchain eval --json` prints for a language model's bundle, and saves in its folder `results/`."""

    schema: int
    """Version of this format: 1."""
    task: str
    """Name of the task: always `lm`."""
    split: str
    """Name of the split that was evaluated."""
    documents: int
    """Number of documents that were evaluated."""
    data_sha256: str
    """SHA-256 of the documents, hexadecimal."""
    model: str
    """Checkpoint that the bundle was built from."""
    backend: str
    """Backend that ran the graph: always `ort`."""
    device: str
    """Device, such as `cpu` or `cuda:0`."""
    precision: str
    """Type of the weights: `fp32`, `int8` or `int4`."""
    artefact: ArtefactDigest
    """The graph that ran, and its digest."""
    perplexity: float
    """Perplexity: the exponential of the mean negative log probability (in nats) per scored token."""
    perplexity_ci95: list[float] | None
    """95 % confidence interval of `perplexity`, by a bootstrap over the documents; null with fewer than two
    documents."""
    tokens_scored: int
    """Number of tokens that were scored: all tokens of each document except its first."""
    max_length: int
    """Number of tokens in a window. A longer document is cut into windows, each of which begins with the last token of
    the window before it."""
    reference: Rise | None
    """Comparison with the FP32 graph; null if the FP32 graph itself was evaluated."""
    environment: Environment
    """Library versions, processor and GPU."""
    seed: int
    """Seed of the bootstrap."""
    created: str
    """Time of the evaluation, ISO 8601, UTC."""
    file: str
    """Path of the file that the result was saved to."""


class ExplainedWeights(TypedDict):
    """What `toolchain explain --json` prints for a language model's bundle."""

    artefact: str
    """Path of the graph."""
    precision: str
    """Type of the graph's weights: `fp32`, `int8` or `int4`."""
    share: float
    """Fraction of the weights in GEMMs that are quantized, 0 to 1."""
    step_bytes: int
    """Bytes of weights that a step has to read from this graph, as counted."""
    fp32_step_bytes: int
    """Bytes of weights that a step has to read from the FP32 graph, `model.onnx`."""
    products: list[WeightOnlyGemm]
    """Every GEMM with a constant weight, in graph order."""
    advice: list[str]
    """What to do next, the most important first."""


class CompiledPass(TypedDict):
    """A pass of a language model as TensorRT-RTX compiles it for one GPU and one shape."""

    phase: Literal["prompt", "step"]
    """`prompt`: the first pass, in which all tokens are new and the cache is empty; `step`: a later pass with one new
    token per row."""
    precision: str
    """Type of the weights in GEMMs: `fp16`, `int8` (one scale per output channel) or `int4` (symmetric, in blocks)."""
    refused: str | None
    """The compiler's error if it cannot compile the pass; null if it can."""
    kernels: int
    """Number of kernels; 0 if the pass cannot be compiled."""
    gemms: dict[str, int]
    """Datatypes of both operands, such as `fp16 x int4` -> number of kernels that multiply such operands. Fused
    attention kernels are not counted."""
    fused_attention: int
    """Number of kernels that each compute the whole attention of a layer."""
    bytes: int | None
    """Bytes that all kernels read and write; null if the pass cannot be compiled."""
    us: float | None
    """Lower bound of the time of the pass, microseconds, from the GPU's data sheet: the sum over its kernels. Null if
    the pass cannot be compiled."""


class ExplainedPasses(TypedDict):
    """What `toolchain explain --target --json` prints for a language model's bundle."""

    bundle: str
    """Path of the bundle."""
    target: str
    """The GPU that was compiled for, as named with `--target`, such as `t4`."""
    sm: int
    """Compute capability of the target times ten: 75 for 7.5."""
    gpu: str
    """Name of the GPU whose data sheet the bounds are computed from."""
    source: str
    """Title of the data sheet that the bounds are computed from."""
    compiler: str
    """Name and version of the compiler."""
    batch: int
    """Number of rows in the batch."""
    length: int
    """Number of tokens in each row: of the prompt pass, the new tokens; of the step, the tokens in the cache."""
    passes: list[CompiledPass]
    """Prompt and step with float16 weights, then prompt and step with the bundle's INT8 or INT4 weights, if it has
    any."""
    answer: str
    """How fast a step can be at most with each type of weights, in sentences."""
    created: str
    """Time of the compilation, ISO 8601, UTC."""
