"""What the service has done since it started, counted as Triton counts.

A request that runs in a batch adds the whole batch's time to the sums, so a sum divided by `success` is what a request
saw. Failures are counted apart: REJECTED never reached the engine (queue full, time-out), CANCELED is the client's
own, BACKEND the engine's, OTHER a fault of the service.

A request that is wrong in itself, such as bad JSON, tensors that the model does not take or a model that is not there,
is counted nowhere, whichever part of the service finds it out: so does Triton 2.51 (it was asked). REJECTED is counted
here as its documentation says; a Triton that turned requests away from a full queue left it at 0.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

REASONS = ("OTHER", "REJECTED", "CANCELED", "BACKEND")


@dataclass
class Times:
    """Where the time of one request went, in nanoseconds."""

    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass
class Counters:
    """Sums since the start; `pending` is the requests that wait now. Durations are those of answered requests."""

    clock: Callable[[], int] = time.monotonic_ns
    success: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    rows: int = 0
    executions: int = 0
    pending: int = 0
    request_ns: int = 0
    failed_ns: int = 0
    times: Times = field(default_factory=Times)
    last_ms: int = 0
    """When the last request was answered, in milliseconds since 1970."""

    def answered(self, rows: int, total_ns: int, spent: Times) -> None:
        """Count an answered request of so many rows."""
        self.success += 1
        self.rows += rows
        self.request_ns += total_ns
        self.times.queue_ns += spent.queue_ns
        self.times.input_ns += spent.input_ns
        self.times.infer_ns += spent.infer_ns
        self.times.output_ns += spent.output_ns
        self.last_ms = time.time_ns() // 1_000_000

    def failed(self, reason: str, total_ns: int) -> None:
        """Count a request that was not answered, for a reason of REASONS."""
        self.failures[reason] += 1
        self.failed_ns += total_ns

    @property
    def request_us(self) -> int:
        """From the request's arrival to its answer, in microseconds."""
        return self.request_ns // 1000

    @property
    def queue_us(self) -> int:
        """Waiting for an engine."""
        return self.times.queue_ns // 1000

    @property
    def compute_input_us(self) -> int:
        """Making token ids of texts, and a batch of them."""
        return self.times.input_ns // 1000

    @property
    def compute_infer_us(self) -> int:
        """In the engine."""
        return self.times.infer_ns // 1000

    @property
    def compute_output_us(self) -> int:
        """Making labels and scores of logits."""
        return self.times.output_ns // 1000

    def statistics(self) -> dict[str, Any]:
        """Return the counts as Triton's model statistics have them."""
        spent = self.times
        sums = {
            "success": (self.success, self.request_ns),
            "fail": (sum(self.failures.values()), self.failed_ns),
            "queue": (self.success, spent.queue_ns),
            "compute_input": (self.success, spent.input_ns),
            "compute_infer": (self.success, spent.infer_ns),
            "compute_output": (self.success, spent.output_ns),
            "cache_hit": (0, 0),
            "cache_miss": (0, 0),
        }
        return {
            "last_inference": self.last_ms,
            "inference_count": self.rows,
            "execution_count": self.executions,
            "inference_stats": {name: {"count": count, "ns": ns} for name, (count, ns) in sums.items()},
            "batch_stats": [],
        }
