"""Timing of contenders in interleaved rounds, so that a machine that slows down affects all of them alike.

A contender is any function to be timed against others.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Timed(Generic[T]):
    """One timed call: its wall time in seconds, and the value that it returned."""

    wall_s: float
    gave: T


@dataclass(frozen=True)
class Ratio:
    """The ratio of two contenders' times: its median over the rounds, its smallest and its largest value."""

    median: float
    low: float
    high: float


def interleaved(contenders: dict[str, Callable[[], T]], rounds: int) -> dict[str, list[Timed[T]]]:
    """Call each contender once per round in random order; return name -> its timed calls, one for each round.

    A warm-up round comes first and is not returned.
    """
    calls: dict[str, list[Timed[T]]] = {name: [] for name in contenders}
    generator = random.Random(0)
    for number in range(rounds + 1):
        for name in generator.sample(list(contenders), len(contenders)):
            start = time.perf_counter()
            gave = contenders[name]()
            wall_s = time.perf_counter() - start
            if number:
                calls[name].append(Timed(wall_s, gave))
    return calls


def ratio(slow: Sequence[Timed[T]], fast: Sequence[Timed[T]]) -> Ratio:
    """Return the ratio of the time of `slow` to the time of `fast`, computed within each round."""
    within = [one.wall_s / other.wall_s for one, other in zip(slow, fast, strict=True)]
    return Ratio(statistics.median(within), min(within), max(within))
