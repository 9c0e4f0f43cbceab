"""Work without a pause, or at a fixed rate, while a meter watches; and how much of it was done by when."""

import itertools
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Tokens
from toolchain.tensors import Batch, Infer

Found = TypeVar("Found")

RESOLUTION_S = 0.001
"""Between entries of what was done: bounds the memory of a long run of short calls."""


@dataclass(frozen=True)
class Piece:
    """A padded batch, its rows, and of its slots those that are real tokens (attention mask 1)."""

    batch: Batch
    rows: int
    tokens: int

    @property
    def slots(self) -> int:
        """Padded positions."""
        return self.batch["input_ids"].size


@dataclass(frozen=True)
class Work:
    """What was done in a window; shares of a call count as such."""

    calls: float
    rows: float
    tokens: float
    slots: float


@dataclass
class Progress:
    """What was done by when, written by the load and read by the meter's thread."""

    times_s: list[float] = field(default_factory=list)
    done: list[tuple[int, int, int, int]] = field(default_factory=list)
    late_s: float = 0.0
    """How far the last request of a fixed rate was behind its time."""

    @property
    def calls(self) -> int:
        """How many there have been."""
        return self.done[-1][0]

    def start(self, now_s: float) -> None:
        """Begin to count."""
        self.times_s.append(now_s)
        self.done.append((0, 0, 0, 0))

    def add(self, piece: Piece, now_s: float) -> None:
        """Count a piece that was done just now."""
        calls, rows, tokens, slots = self.done[-1]
        total = (calls + 1, rows + piece.rows, tokens + piece.tokens, slots + piece.slots)
        if len(self.done) > 1 and now_s - self.times_s[-2] < RESOLUTION_S:
            self.done[-1], self.times_s[-1] = total, now_s
        else:
            self.done.append(total)  # before its time: a reader takes as many entries as there are times
            self.times_s.append(now_s)

    def between(self, opened_s: float, closed_s: float) -> Work:
        """Return what was done between two moments, linear within a call."""
        first = max(0, bisect_right(self.times_s, opened_s) - 1)
        last = bisect_left(self.times_s, closed_s) + 1
        times = np.array(self.times_s[first:last])
        columns = np.array(self.done[first : first + len(times)], np.float64).T
        return Work(*(float(np.subtract(*np.interp([closed_s, opened_s], times, column))) for column in columns))


def pieces(tokens: Tokens, batches: Iterable[Indices]) -> list[Piece]:
    """Pad batches of rows beforehand, so that the load is nothing but inference."""
    lengths = tokens.lengths
    return [Piece(tokens.batch(rows), len(rows), int(lengths[rows].sum())) for rows in batches]


def shuffled(items: list[Piece], *, seed: int) -> Iterator[Piece]:
    """Yield the pieces for ever, each pass in another order, so that every window has the same mixture."""
    generator = np.random.default_rng(seed)
    while True:
        for index in generator.permutation(len(items)):
            yield items[index]


def arrivals(rate: float, *, seed: int) -> Iterator[float]:
    """Yield seconds from the start at which requests arrive: one in each 1 / rate, at a random moment of it.

    So gaps do not lock to the sensor's period, and yet a window has its `rate` requests a second to within one.
    """
    moments = np.random.default_rng(seed)
    return ((number + moments.uniform()) / rate for number in itertools.count())


def drive(
    infer: Infer,
    stream: Iterator[Piece],
    measure: Callable[[Progress], Found],
    *,
    cancel: Callable[[], None] = lambda: None,
    arriving: Iterator[float] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Found:
    """Infer piece after piece, or as they arrive, until `measure`, in a thread of its own, returns; return its value.

    The load keeps the calling thread, as some runtimes answer only in the one that opened them. An error of `measure`
    ends both; at one of `infer`, `cancel` is called, which must make `measure` end.
    """
    progress = Progress()
    start_s = clock()
    progress.start(start_s)
    with ThreadPoolExecutor(1, "meter") as pool:
        measured = pool.submit(measure, progress)
        try:
            while not measured.done():
                piece = next(stream)
                if arriving is not None:
                    progress.late_s = clock() - start_s - (due := next(arriving))
                    sleep(max(0.0, start_s + due - clock()))
                infer(piece.batch)
                progress.add(piece, clock())
        except BaseException:
            cancel()
            raise
        return measured.result()
