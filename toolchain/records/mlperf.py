"""The `mlperf` block of a result: one run of LoadGen, MLPerf's load generator.

LoadGen sends queries; a query asks for one or more samples, and a sample is one row.
"""

from typing import Literal, NotRequired, TypedDict

Scenario = Literal["single-stream", "offline", "server"]


class Checks(TypedDict):
    """Conditions for a valid run that LoadGen checks."""

    min_duration: bool
    """Whether the run lasted at least `settings.min_duration_s`."""
    min_queries: bool
    """Whether LoadGen issued at least `settings.min_query_count` queries."""
    latency_bound: NotRequired[bool]
    """Whether at least `settings.target_percentile` percent of the queries took at most `settings.target_latency_ms`.
    Only in the scenario `server`."""


class EarlyStopping(TypedDict):
    """LoadGen's early-stopping check: whether the run has enough queries to estimate its percentile of latency."""

    satisfied: bool
    """Whether the run has enough queries."""
    message: str
    """LoadGen's message about the check."""
    p90_ms: float | None
    """Upper bound of the 90th percentile of latency at 99 % confidence, ms. Only in the scenario `single-stream`; null
    if there were too few queries."""
    p99_ms: float | None
    """Upper bound of the 99th percentile of latency at 99 % confidence, ms. Only in the scenario `single-stream`; null
    if there were too few queries."""


class ScenarioLatency(TypedDict):
    """Latency of the queries of a run, in milliseconds."""

    mean: float
    """Mean, ms."""
    min: float
    """Smallest latency, ms."""
    max: float
    """Largest latency, ms."""
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
    """Samples per second. In the scenario `single-stream`, LoadGen's own overhead is subtracted; in `server`, only
    completed samples count."""
    latency_ms: ScenarioLatency | None
    """Latency of the queries; null in the scenario `offline`, where all samples are sent at once."""
    scheduled_samples_per_s: NotRequired[float]
    """Samples per second that LoadGen scheduled. Only in the scenario `server`."""
    over_latency_queries: NotRequired[int]
    """Number of queries that took longer than `settings.target_latency_ms`. Only in the scenario `server`."""


class Seeds(TypedDict):
    """Seeds of LoadGen's random number generators, 64 bits each."""

    qsl: int
    """Seed of the order in which samples are loaded into the sample library (QSL)."""
    sample_index: int
    """Seed of the choice of samples."""
    schedule: int
    """Seed of the arrival times."""


class Settings(TypedDict):
    """The settings and rules that LoadGen applied to the run."""

    min_duration_s: float
    """Shortest allowed duration of the run, s."""
    min_query_count: int
    """Smallest allowed number of queries."""
    min_sample_count: int
    """Smallest allowed number of samples."""
    target_qps: float
    """Queries per second that LoadGen expected; in the scenario `server`, the mean rate at which it sent them."""
    target_latency_ms: float | None
    """Upper bound of the latency that LoadGen checks, ms. Only in the scenario `server`, else null."""
    target_percentile: float | None
    """Percentile of the latency that the scenario reports or checks, in percent; null in the scenario `offline`."""
    rows: int
    """Number of rows in the sample library, from which LoadGen draws samples."""
    seeds: Seeds
    """Seeds of LoadGen's random number generators."""
    rules_min_duration_s: float
    """Shortest duration that MLPerf's rules require, s."""
    shortened: bool
    """Whether `min_duration_s` is shorter than MLPerf's rules require."""


class Outcome(TypedDict):
    """LoadGen's verdict and measurements, from its detailed log."""

    valid: bool
    """Whether LoadGen judged the run valid."""
    reasons: list[str]
    """LoadGen's reasons why the run is invalid; empty for a valid run."""
    errors: list[str]
    """Errors that LoadGen logged."""
    checks: Checks
    """The conditions that LoadGen checked."""
    early_stopping: EarlyStopping
    """Whether the run has enough queries to estimate its percentile of latency."""
    performance: Performance
    """Throughput and latency."""
    settings: Settings
    """The settings and rules that LoadGen applied."""
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
        # Where the measured time begins: `text` includes tokenization, `tokens` does not.
        "from": Literal["text", "tokens"],
    },
)
Origin.__doc__ = "Where the measured time begins."


class MlperfRun(Origin, Outcome):
    """One run of an MLPerf scenario."""

    scenario: Scenario
    """The MLPerf scenario."""
    batches: int
    """Number of batches in which the model processed the samples."""


class MlperfBlock(MlperfRun):
    """The `mlperf` block of a result."""

    summary_file: str
    """File name of LoadGen's summary, in the folder of the result."""
    detail_file: str
    """File name of LoadGen's detailed log, in the folder of the result."""
