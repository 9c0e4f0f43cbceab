"""What `toolchain generate --backend openai` prints: the measurement of a language model that another program serves.

A stream sends prompts one after the other; several streams run at the same time. A reply arrives as events, each with a
part of the text. Every number of tokens is the server's own count.
"""

from typing import Literal, TypedDict

from toolchain.records.result import Environment


class ServedText(TypedDict):
    """One prompt and the server's reply to it."""

    prompt: str
    """The prompt, as it was given."""
    text: str
    """The text of the reply; if the server sends its reasoning, that comes first."""
    prompt_tokens: int
    """Number of tokens of the prompt, including the server's chat template."""
    generated_tokens: int
    """Number of tokens of the reply."""
    ended: str
    """Why the reply ended, as the server reports it, such as `stop` or `length`."""


class ServedRun(TypedDict):
    """Throughput, latency and energy with one number of simultaneous streams."""

    concurrency: int
    """Number of streams that ran at the same time."""
    requests: int
    """Number of requests that were timed."""
    seconds: float
    """Time from the first request to the end of the last reply, s."""
    prompt_tokens: int
    """Number of tokens in the prompts of all requests."""
    cached_prompt_tokens: int | None
    """Number of prompt tokens that the server took from its prompt cache instead of computing them; null if it does not
    report it."""
    generated_tokens: int
    """Number of tokens in all replies."""
    parts: int
    """Number of events with text. It is smaller than `generated_tokens` if the server sends several tokens in one
    event."""
    tokens_per_s: float
    """Generated tokens per second: `generated_tokens` divided by `seconds`."""
    first_token_ms_p50: float
    """Median time to first token: from a request to its first event with text, ms."""
    first_token_ms_p99: float
    """99th percentile of the time to first token, ms."""
    inter_token_ms_p50: float | None
    """Median time between two successive events with text of a reply, ms; null if no reply has two."""
    inter_token_ms_p99: float | None
    """99th percentile of the time between two successive events with text, ms; null if no reply has two."""
    ms_per_token_p50: float | None
    """Median over the replies of the mean time per token after the first, ms; null if no reply has two tokens."""
    ms_per_token_p99: float | None
    """99th percentile over the replies of the mean time per token after the first, ms; null if no reply has two
    tokens."""
    j_per_prompt_token: float | None
    """Energy of the GPUs per prompt token, J: energy of a request for one token, divided by the tokens of its prompt.
    Null if it was not measured."""
    j_per_generated_token: float | None
    """Energy of the GPUs per generated token after the first, J: energy of a whole request minus that of a request for
    one token, divided by the number of these tokens. Null if it was not measured, or if no token follows the first."""
    per_generated_token_j: float | None
    """Energy of the GPUs per generated token, J: energy of a whole request divided by its generated tokens. Null if it
    was not measured."""
    energy_reason: str | None
    """Code of the reason why the energies are null, else null."""


class ServedGeneration(TypedDict):
    """What `toolchain generate --backend openai --json` prints."""

    schema: int
    """Version of this record: 1."""
    model: str
    """Name of the model on the server."""
    backend: Literal["openai"]
    """Interface of the server: OpenAI's HTTP interface."""
    url: str
    """URL that the requests were sent to."""
    max_new_tokens: int
    """Largest number of tokens that a reply may have."""
    rounds: int
    """Least number of times that each prompt was sent with each number of streams."""
    prompts_sha256: str
    """SHA-256 of the list of prompts, hexadecimal."""
    gpus: list[str]
    """Names of the GPUs whose energy was measured; empty if it was not."""
    texts: list[ServedText]
    """The prompts, and the first reply to each, from the first number of streams."""
    runs: list[ServedRun]
    """One entry for each number of streams, in the order in which they were given."""
    environment: Environment
    """Library versions, processor and GPU of the machine that sent the requests."""
    created: str
    """Time at which the record was written, ISO 8601, UTC."""


class ServedRatio(TypedDict):
    """Two measurements with the same number of streams: each figure of the candidate divided by the baseline's."""

    concurrency: int
    """Number of streams that ran at the same time."""
    tokens_per_s: float
    """Ratio of the generated tokens per second; above 1, the candidate is faster."""
    first_token_ms_p50: float
    """Ratio of the median times to first token; below 1, the candidate is faster."""
    first_token_ms_p99: float
    """Ratio of the 99th percentiles of the time to first token; below 1, the candidate is faster."""
    ms_per_token_p50: float | None
    """Ratio of the median times per token after the first; below 1, the candidate is faster. Null if one of the two has
    none."""
    per_generated_token_j: float | None
    """Ratio of the GPUs' energy per generated token; below 1, the candidate needs less. Null if one of the two has
    none."""


class ServedComparison(TypedDict):
    """The comparison of a candidate with the baseline, both records of `generate --backend openai`."""

    baseline: str
    """Path of the baseline's record."""
    candidate: str
    """Path of the candidate's record."""
    gpus: list[int]
    """Number of GPUs whose energy was measured: [baseline, candidate]."""
    texts_equal: int
    """Number of prompts to which baseline and candidate gave the same reply."""
    prompts: int
    """Number of prompts."""
    ratios: list[ServedRatio]
    """One entry for each number of streams that both records have."""


class ServedComparisonList(TypedDict):
    """What `toolchain compare --json` prints for records of `generate --backend openai`."""

    comparisons: list[ServedComparison]
    """One comparison with the first record, the baseline, for each of the other records."""
