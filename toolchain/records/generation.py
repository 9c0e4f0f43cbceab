"""What `toolchain generate` prints: the texts, and the measurement of prefill and decode."""

from typing import Literal, TypedDict

from toolchain.records.result import Environment


class GeneratedText(TypedDict):
    """One prompt and its continuation."""

    prompt: str
    """The prompt as it was given."""
    text: str
    """The continuation, without special tokens."""
    prompt_tokens: int
    """Number of tokens of the prompt, with the special tokens that the tokenizer adds."""
    tokens: list[int]
    """Ids of the generated tokens; the last is the end of text if `ended` is eos."""
    ended: Literal["eos", "length"]
    """Why it ended: the model wrote its end of text, or `--max-new-tokens` were written."""


class Prefill(TypedDict):
    """The first pass, which reads the prompt and gives the first token."""

    first_token_ms_p50: float
    """Median time from a batch's token ids to its first token, ms."""
    first_token_ms_p99: float
    """99th percentile of it, ms."""
    tokens_per_s: float
    """Prompt tokens a second, padded positions not counted."""
    j_per_token: float | None
    """Energy of a prompt token, J: that of a pass that gives the first token, over the prompt tokens."""


class Decode(TypedDict):
    """The passes after the first; each gives one token a row."""

    steps: int
    """Number of timed steps, over all batches and rounds."""
    step_ms_p50: float | None
    """Median time of a step, ms; null if there was no step."""
    step_ms_p99: float | None
    """99th percentile of it, ms."""
    tokens_per_s: float | None
    """Generated tokens a second, without the first of each row and without those behind an end of text."""
    bytes_per_step: int | None
    """Bytes that a step must read, by count: weights and keys and values; null without a cache."""
    gigabytes_per_s: float | None
    """`bytes_per_step` over the median time of a step, 1e9 bytes/s; null without a cache."""
    bandwidth_share: float | None
    """`gigabytes_per_s` over `memory_gigabytes_per_s`; null without either. A small model may lie in the caches of a
    CPU, and the share is then above 1."""
    j_per_token: float | None
    """Energy of a generated token, J: the whole without that of the first pass, over the tokens of the steps."""


class CacheRun(TypedDict):
    """The measurement of one kind of cache."""

    cache: str
    """Kind of cache: dynamic, static or none."""
    seconds: float
    """Time of one round over all prompts, s: the median of the rounds."""
    generated_tokens: int
    """Tokens that a round gives."""
    seconds_per_token: float
    """`seconds` over `generated_tokens`, s."""
    prefill: Prefill
    """The first pass."""
    decode: Decode
    """The other passes."""
    kv_cache_bytes_per_token: int | None
    """Bytes of the keys and values of one position of one row; null without a cache."""
    per_generated_token_j: float | None
    """Energy of the whole over the generated tokens, J."""
    energy_reason: str | None
    """Reason code if the energies are null, else null."""


class CacheRatio(TypedDict):
    """A run with a cache beside the one without."""

    cache: str
    """Kind of the cache: dynamic or static."""
    measured: float
    """Time without a cache over the time with it."""
    predicted: float
    """The same ratio by the counts of positions, from the prefill and step times of the run with the cache."""
    tokens_equal: bool
    """Whether both runs gave the same tokens."""


class Generation(TypedDict):
    """What `toolchain generate --json` prints."""

    model: str
    """The checkpoint as it was named."""
    backend: str
    """Backend that ran: torch."""
    device: str
    """Device, such as cpu or cuda:0."""
    precision: str
    """Type of weights and activations: fp32."""
    batch_size: int
    """Rows of a batch; the last may have fewer."""
    max_new_tokens: int
    """Most tokens that a row may get."""
    rounds: int
    """How often each batch was timed with each kind of cache, in turn."""
    weight_bytes_per_step: int
    """Bytes of the weights that a step reads, by count: all but the tables of which it gathers a row."""
    memory_gigabytes_per_s: float | None
    """Measured memory bandwidth of the device, 1e9 bytes/s: a copy or a sum of a large tensor in PyTorch, whichever is
    faster; null if it cannot be measured."""
    texts: list[GeneratedText]
    """Prompts and texts, of the kind of cache that was named first."""
    runs: list[CacheRun]
    """One measurement for each kind of cache, in the order in which they were named."""
    ratios: list[CacheRatio]
    """One for each cache, if `none` was among the kinds."""
    environment: Environment
    """Versions and hardware."""
