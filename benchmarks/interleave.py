"""Interleaved rounds of contenders, so that a machine that slows down slows all of them alike."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Timed(Generic[T]):
    """The result of one call, and its seconds."""

    wall_s: float
    gave: T


@dataclass(frozen=True)
class Ratio:
    """The ratio of two times: the median over rounds, and the least and the most."""

    median: float
    low: float
    high: float


def interleaved(contenders: dict[str, Callable[[], T]], rounds: int) -> dict[str, list[Timed[T]]]:
    """Call each contender once a round, in random order, after a warm-up round that is not counted."""
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
    """Return the ratio of the times of `slow` to those of `fast`, taken within each round."""
    within = [one.wall_s / other.wall_s for one, other in zip(slow, fast, strict=True)]
    return Ratio(statistics.median(within), min(within), max(within))
