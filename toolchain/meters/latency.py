"""How long single calls take."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)


def measure_latency(
    call: Callable[[Any], object], arguments: Iterable[Any], *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Time `call` on each argument and return mean and percentiles in milliseconds."""
    times_ms = []
    for argument in arguments:
        start = clock()
        call(argument)
        times_ms.append((clock() - start) * 1e3)
    values = np.percentile(times_ms, PERCENTILES)
    named = {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, values, strict=True)}
    return {"mean": float(np.mean(times_ms)), **named}
