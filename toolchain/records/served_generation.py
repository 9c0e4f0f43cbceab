"""What `toolchain generate --backend openai` prints: a served language model, measured from outside.

Every count of tokens is the server's own.
"""

from typing import Literal, TypedDict

from toolchain.records.result import Environment


class ServedText(TypedDict):
    """One prompt and the reply to it."""

    prompt: str
    """The prompt as it was given."""
    text: str
    """The reply, with the reasoning before it if the server sends one."""
    prompt_tokens: int
    """Tokens of the prompt, with the server's chat template."""
    generated_tokens: int
    """Tokens of the reply."""
    ended: str
    """Why it ended, in the server's word, such as stop or length."""


class ServedRun(TypedDict):
    """The measurement of one number of streams."""

    concurrency: int
    """Streams in flight."""
    requests: int
    """Replies that were timed."""
    seconds: float
    """Time from the first request to the end of the last reply, s."""
    prompt_tokens: int
    """Tokens of all prompts."""
    cached_prompt_tokens: int | None
    """Those of them that the server took from its cache of earlier prompts; null if it does not say."""
    generated_tokens: int
    """Tokens of all replies."""
    parts: int
    """Events with text; fewer than tokens if the server sends several tokens at once."""
    tokens_per_s: float
    """`generated_tokens` over `seconds`."""
    first_token_ms_p50: float
    """Median time from a request to its first event with text, ms."""
    first_token_ms_p99: float
    """99th percentile of it, ms."""
    inter_token_ms_p50: float | None
    """Median time between two events with text of a reply, ms; null if no reply has two."""
    inter_token_ms_p99: float | None
    """99th percentile of it, ms."""
    ms_per_token_p50: float | None
    """Median over the replies of the mean time of a token after the first, ms; null if no reply has two."""
    ms_per_token_p99: float | None
    """99th percentile of it, ms."""
    j_per_prompt_token: float | None
    """Energy of the GPUs for a prompt token, J: that of a request for one token, over the tokens of its prompt."""
    j_per_generated_token: float | None
    """Energy of the GPUs for a generated token after the first, J: the whole without that of the first token."""
    per_generated_token_j: float | None
    """Energy of the GPUs for everything, over the generated tokens, J."""
    energy_reason: str | None
    """Reason code if the energies are null, else null."""


class ServedGeneration(TypedDict):
    """What `toolchain generate --backend openai --json` prints."""

    schema: int
    """Version of this record: 1."""
    model: str
    """The model, as the server names it."""
    backend: Literal["openai"]
    """The interface of the server."""
    url: str
    """Address of the requests."""
    max_new_tokens: int
    """Most tokens that a reply may have."""
    rounds: int
    """How often each prompt was sent, at least."""
    prompts_sha256: str
    """Digest of the prompts, in their order."""
    gpus: list[str]
    """Names of the GPUs whose energy was measured."""
    texts: list[ServedText]
    """The prompts and their first replies, of the first number of streams."""
    runs: list[ServedRun]
    """One measurement for each number of streams, in the order in which they were given."""
    environment: Environment
    """Versions and hardware of the machine of the client."""
    created: str
    """Time, ISO 8601, UTC."""


class ServedRatio(TypedDict):
    """Two measurements of the same number of streams: the candidate's figure over the baseline's."""

    concurrency: int
    """Streams in flight."""
    tokens_per_s: float
    """Ratio of the generated tokens a second; above 1 the candidate is faster."""
    first_token_ms_p50: float
    """Ratio of the median times to the first token; below 1 the candidate is faster."""
    first_token_ms_p99: float
    """Ratio of the 99th percentiles of it."""
    ms_per_token_p50: float | None
    """Ratio of the median times of a token; null if one of the two has none."""
    per_generated_token_j: float | None
    """Ratio of the energy of the GPUs for a generated token; null if one of the two has none."""


class ServedComparison(TypedDict):
    """What `compare` prints for two records of `generate --backend openai`."""

    baseline: str
    """File of the baseline."""
    candidate: str
    """File of the candidate."""
    gpus: list[int]
    """Number of GPUs whose energy was measured: the baseline's, the candidate's."""
    texts_equal: int
    """Prompts to which both gave the same reply."""
    prompts: int
    """Number of prompts."""
    ratios: list[ServedRatio]
    """One for each number of streams that both have."""


class ServedComparisonList(TypedDict):
    """What `compare --json` prints for records of `generate --backend openai`."""

    comparisons: list[ServedComparison]
    """Each candidate against the first record."""
