"""What `toolchain generate --json` prints: the generated texts, and the speed and energy of prefill and decode.

A step is a pass after the first: it computes one token for each row of a batch.
"""

from typing import Literal, TypedDict

from toolchain.records.result import Environment


class GeneratedText(TypedDict):
    """One prompt, and the text that the model generated after it."""

    prompt: str
    """The prompt, as it was given."""
    text: str
    """The generated text, without special tokens."""
    prompt_tokens: int
    """Number of tokens of the prompt, including the special tokens that the tokenizer adds."""
    tokens: list[int]
    """Ids of the generated tokens. If `ended` is `eos`, the last one is the end-of-text token."""
    ended: Literal["eos", "length"]
    """Why the generation ended: `eos`, the model generated its end-of-text token; `length`, `--max-new-tokens` was
    reached."""


class Prefill(TypedDict):
    """The first pass of a batch, which processes the prompts and gives the first token of each row."""

    first_token_ms_p50: float
    """Median time to first token of a batch, ms. It does not include tokenization."""
    first_token_ms_p99: float
    """99th percentile of the time to first token, ms."""
    tokens_per_s: float
    """Prompt tokens per second, padding not counted."""
    j_per_token: float | None
    """Energy per prompt token, J: energy of the first passes divided by the number of prompt tokens. Null if it was not
    measured."""


class Decode(TypedDict):
    """The steps after the first pass, each of which gives one more token per row."""

    steps: int
    """Number of steps that were timed, over all batches and rounds."""
    step_ms_p50: float | None
    """Median time of a step, ms; null if there was no step."""
    step_ms_p99: float | None
    """99th percentile of the time of a step, ms; null if there was no step."""
    tokens_per_s: float | None
    """Generated tokens per second. The first token of a row and tokens after its end-of-text token are not counted.
    Null if there was no step."""
    bytes_per_step: int | None
    """Bytes that a step has to read, as counted: the weights, and the cached keys and values (mean over the steps).
    Null without a cache."""
    gigabytes_per_s: float | None
    """Memory throughput: `bytes_per_step` divided by the median time of a step, in 1e9 bytes/s; null without a
    cache."""
    bandwidth_share: float | None
    """`gigabytes_per_s` divided by `memory_gigabytes_per_s`; null if either is null. It can exceed 1 if a small model
    fits into the caches of the CPU."""
    j_per_token: float | None
    """Energy per generated token after the first, J: energy of the whole generation minus that of the first passes,
    divided by the number of these tokens. Null if it was not measured, or if no token follows the first."""


class CacheRun(TypedDict):
    """Speed and energy with one kind of key-value cache."""

    cache: str
    """Kind of key-value cache: `dynamic`, `static` or `none`."""
    seconds: float
    """Time of one round over all prompts, s: the median over the rounds."""
    generated_tokens: int
    """Number of tokens that are generated in one round."""
    seconds_per_token: float
    """`seconds` divided by `generated_tokens`, s."""
    prefill: Prefill
    """Speed and energy of the first pass."""
    decode: Decode
    """Speed and energy of the later passes, the steps."""
    kv_cache_bytes_per_token: int | None
    """Size of the cached keys and values of one position of one row, in bytes; null without a cache."""
    per_generated_token_j: float | None
    """Energy per generated token, J: energy of the whole generation divided by `generated_tokens`. Null if it was not
    measured."""
    energy_reason: str | None
    """Code of the reason why the energies are null, else null."""


class CacheRatio(TypedDict):
    """How much faster a key-value cache makes the generation."""

    cache: str
    """Kind of key-value cache: `dynamic` or `static`."""
    measured: float
    """Time without a cache divided by the time with this cache."""
    predicted: float
    """The same ratio as predicted from the number of positions that each pass computes, with the measured pass times of
    the run with this cache."""
    tokens_equal: bool
    """Whether the runs with and without the cache generated the same tokens."""


class Generation(TypedDict):
    """What `toolchain generate --json` prints."""

    model: str
    """The checkpoint or bundle, as it was named."""
    backend: str
    """Backend that ran the model: `torch` or `ort`."""
    device: str
    """Device, such as cpu or cuda:0."""
    precision: str
    """Type of the weights: `fp32`; for a bundle also `int8` or `int4`."""
    batch_size: int
    """Number of prompts in a batch; the last batch may have fewer."""
    max_new_tokens: int
    """Largest number of tokens that are generated for a prompt."""
    rounds: int
    """How often each batch was timed with each kind of cache. The kinds took turns."""
    weight_bytes_per_step: int
    """Bytes of weights that a step has to read, as counted. Embedding tables, of which it reads one row per token, are
    not included."""
    memory_gigabytes_per_s: float | None
    """Measured memory bandwidth of the device, 1e9 bytes/s; null if it cannot be measured. A large tensor is copied or
    summed in PyTorch, and the faster of the two counts."""
    texts: list[GeneratedText]
    """The prompts and the generated texts, from the first kind of cache in `--cache`."""
    runs: list[CacheRun]
    """One entry for each kind of cache, in the order of `--cache`."""
    ratios: list[CacheRatio]
    """One entry for each kind of cache other than `none`; empty if `none` was not measured."""
    environment: Environment
    """Library versions, processor and GPU."""
