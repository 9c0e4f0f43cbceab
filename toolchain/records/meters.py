"""Readings of the latency meter and the memory meter, as they stand in a result."""

from typing import TypedDict


class Latency(TypedDict):
    """Times of single calls, ms."""

    mean: float
    """Arithmetic mean, ms."""
    p50: float
    """Median, ms."""
    p90: float
    """90th percentile, ms."""
    p95: float
    """95th percentile, ms."""
    p99: float
    """99th percentile, ms."""


class PeakMemory(TypedDict):
    """Peak memory of this process, MB (10^6 bytes)."""

    host: float | None
    """Largest resident set, MB; null where the system does not tell."""
    device: float | None
    """Largest memory allocated on the GPU, MB."""
    device_method: str | None
    """`nvml_samples`: the largest of samples every 50 ms; null without a value."""
    device_reason: str | None
    """Code of the reason why `device` is null."""
