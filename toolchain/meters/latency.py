"""Latency of single calls."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from toolchain.records.result import CallTimesMs

Argument = TypeVar("Argument")


def measure_latency(
    call: Callable[[Argument], object],
    arguments: Iterable[Argument],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> CallTimesMs:
    """Time `call` on each argument; return the mean and percentiles of its latency in milliseconds."""
    times_ms = []
    for argument in arguments:
        start = clock()
        call(argument)
        times_ms.append((clock() - start) * 1e3)
    p50, p90, p95, p99 = np.percentile(times_ms, (50, 90, 95, 99)).tolist()
    return {"mean": float(np.mean(times_ms)), "p50": p50, "p90": p90, "p95": p95, "p99": p99}
