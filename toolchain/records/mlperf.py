"""The `mlperf` block of a result: one run of MLPerf's load generator, LoadGen. Samples are rows."""

from typing import Literal, NotRequired, TypedDict

Scenario = Literal["single-stream", "offline", "server"]


class Checks(TypedDict):
    """Conditions that LoadGen checks."""

    min_duration: bool
    """Whether the run lasted at least `settings.min_duration_s`."""
    min_queries: bool
    """Whether LoadGen issued at least `settings.min_query_count` queries."""
    latency_bound: NotRequired[bool]
    """Server only: whether `settings.target_percentile` of the queries met `settings.target_latency_ms`."""


class EarlyStopping(TypedDict):
    """LoadGen's early stopping: whether the run was long enough for its percentile."""

    satisfied: bool
    """Whether LoadGen processed enough queries."""
    message: str
    """LoadGen's own text."""
    p90_ms: float | None
    """Single-stream: upper bound of the 90th percentile with 99 % confidence, ms; null if too few queries."""
    p99_ms: float | None
    """Single-stream: upper bound of the 99th percentile with 99 % confidence, ms; null if too few queries."""


class ScenarioLatency(TypedDict):
    """Latency of a query, ms."""

    mean: float
    """Mean, ms."""
    min: float
    """Least, ms."""
    max: float
    """Largest, ms."""
    p50: float
    """50th percentile, ms."""
    p90: float
    """90th percentile, ms."""
    p95: float
    """95th percentile, ms."""
    p97: float
    """97th percentile, ms."""
    p99: float
    """99th percentile, ms."""
    p99_9: float
    """99.9th percentile, ms."""


class Performance(TypedDict):
    """Throughput and latency of a run."""

    samples_per_s: float
    """Samples per second; single-stream: without the overhead of LoadGen; server: completed samples."""
    latency_ms: ScenarioLatency | None
    """Latency; null for offline, whose samples all wait for the same end."""
    scheduled_samples_per_s: NotRequired[float]
    """Server only: samples per second that LoadGen scheduled."""
    over_latency_queries: NotRequired[int]
    """Server only: number of queries above `settings.target_latency_ms`."""


class Seeds(TypedDict):
    """Seeds of LoadGen's random number generators, 64 bits each."""

    qsl: int
    """Seed of the order in which samples are loaded."""
    sample_index: int
    """Seed of the choice of samples."""
    schedule: int
    """Seed of the arrival times."""


class Settings(TypedDict):
    """The rules of a run as LoadGen applied them."""

    min_duration_s: float
    """Least duration, s."""
    min_query_count: int
    """Least number of queries."""
    min_sample_count: int
    """Least number of samples."""
    target_qps: float
    """Queries per second that LoadGen expected or, for server, scheduled."""
    target_latency_ms: float | None
    """Server: bound of the latency, ms; else null."""
    target_percentile: float | None
    """Percentile of the latency that the scenario judges, percent; null for offline."""
    rows: int
    """Number of rows in the sample library."""
    seeds: Seeds
    """Seeds."""
    rules_min_duration_s: float
    """Least duration by MLPerf's rules, s."""
    shortened: bool
    """Whether `min_duration_s` is below MLPerf's rules."""


class Outcome(TypedDict):
    """LoadGen's verdict and measurements, from its detailed log."""

    valid: bool
    """LoadGen's verdict."""
    reasons: list[str]
    """LoadGen's reasons for an invalid run."""
    errors: list[str]
    """Errors that LoadGen logged."""
    checks: Checks
    """Conditions that LoadGen checked."""
    early_stopping: EarlyStopping
    """Whether the run was long enough for its percentile."""
    performance: Performance
    """Throughput and latency."""
    settings: Settings
    """Rules as LoadGen applied them."""
    queries: int
    """Number of queries."""
    samples: int
    """Number of samples: queries times samples per query."""
    loadgen: str
    """Version of LoadGen."""


# Functional syntax because the key `from` is a Python keyword.
Origin = TypedDict(
    "Origin",
    {
        # Where the measured time begins: `text` includes tokenising, `tokens` does not.
        "from": Literal["text", "tokens"],
    },
)
Origin.__doc__ = "Where the measured time begins."


class MlperfRun(Origin, Outcome):
    """One run of a scenario."""

    scenario: Scenario
    """MLPerf scenario."""
    batches: int
    """Number of batches in which the samples were processed."""


class MlperfBlock(MlperfRun):
    """The `mlperf` block of a result."""

    summary_file: str
    """Name of LoadGen's summary, beside the result."""
    detail_file: str
    """Name of LoadGen's detailed log, beside the result."""
