"""Counters of the service since it started, with the meaning that Triton gives them.

A request that runs in a batch adds the time of the whole batch to the sums, so a sum divided by `success` is the mean
time that a request experienced. Failures have sums of their own. Their reasons are: REJECTED, the request never reached
an engine (full queue, timeout); CANCELED, the client cancelled it; BACKEND, the engine failed; OTHER, a bug of the
service.

An invalid request (bad JSON, unsuitable tensors, unknown model) is not counted anywhere; a real Triton 2.51 does not
count it either. REJECTED is counted as Triton's documentation says, although a real Triton with a full queue left that
counter at 0.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from toolchain.records.serving import Duration, ModelStatistics

FAILURE_REASONS = ("OTHER", "REJECTED", "CANCELED", "BACKEND")


@dataclass
class Times:
    """How long each phase of a request took, in nanoseconds.

    `queue_ns` is the wait in the queue, `input_ns` tokenising and padding, `infer_ns` the run of the engine, and
    `output_ns` the computation of labels and scores.
    """

    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    # The stage of a cascade that answered each row, "" for a row from the cache; None if the model is not a cascade.
    stages: list[str] | None = None

    def add(self, other: "Times") -> None:
        """Add the durations of another request, or of another part of the same request."""
        self.queue_ns += other.queue_ns
        self.input_ns += other.input_ns
        self.infer_ns += other.infer_ns
        self.output_ns += other.output_ns


@dataclass
class Counters:
    """Counts, and summed durations in nanoseconds, since the service started.

    `request_ns` and `times` are sums over successful requests, `failed_ns` over failed ones.
    """

    clock: Callable[[], int] = time.monotonic_ns
    success: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAILURE_REASONS, 0))
    rows: int = 0
    executions: int = 0
    # Requests that wait for an engine now.
    pending: int = 0
    # Stage of a cascade -> number of rows that it answered; empty if the model is not a cascade.
    stage_rows: dict[str, int] = field(default_factory=dict)
    # Number of rows in the cache; None without a cache.
    cache_entries: int | None = None
    # Number of rows that were found in the cache, and of rows that were not (None without a cache), and the summed time
    # of their lookups.
    cache_hits: int | None = None
    cache_misses: int | None = None
    hit_ns: int = 0
    miss_ns: int = 0
    request_ns: int = 0
    failed_ns: int = 0
    times: Times = field(default_factory=Times)
    # Time of the last successful request, in milliseconds since 1970.
    last_ms: int = 0

    def count_success(self, rows: int, total_ns: int, spent: Times) -> None:
        """Count a successful request of `rows` rows, which took `total_ns` in all; `spent` has its phases."""
        self.success += 1
        self.rows += rows
        self.request_ns += total_ns
        self.times.add(spent)
        self.last_ms = time.time_ns() // 1_000_000

    def count_failure(self, reason: str, total_ns: int) -> None:
        """Count a failed request, which took `total_ns`; `reason` is one of FAILURE_REASONS."""
        self.failures[reason] += 1
        self.failed_ns += total_ns

    def count_lookups(self, hits: int, misses: int, ns: int) -> None:
        """Count the cache hits and misses among the rows of a request. All lookups together took `ns` nanoseconds."""
        self.cache_hits, self.cache_misses = (self.cache_hits or 0) + hits, (self.cache_misses or 0) + misses
        self.hit_ns += ns * hits // (hits + misses)
        self.miss_ns += ns * misses // (hits + misses)

    def statistics(self, name: str, version: str) -> ModelStatistics:
        """Return the counters in the form of Triton's model statistics."""

        def summed(ns: int) -> Duration:
            return {"count": self.success, "ns": ns}

        return {
            "name": name,
            "version": version,
            "last_inference": self.last_ms,
            "inference_count": self.rows,
            "execution_count": self.executions,
            "inference_stats": {
                "success": summed(self.request_ns),
                "fail": {"count": sum(self.failures.values()), "ns": self.failed_ns},
                "queue": summed(self.times.queue_ns),
                "compute_input": summed(self.times.input_ns),
                "compute_infer": summed(self.times.infer_ns),
                "compute_output": summed(self.times.output_ns),
                "cache_hit": {"count": self.cache_hits or 0, "ns": self.hit_ns},
                "cache_miss": {"count": self.cache_misses or 0, "ns": self.miss_ns},
            },
            "batch_stats": [],
        }
