"""The load during a measurement: batches without a pause, or rows at a fixed rate, and a count of the work done."""

import itertools
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from toolchain.base.tensors import Batch, Infer
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Tokens

Found = TypeVar("Found")

# Smallest time in seconds between two entries of `Progress`. It limits the memory for a long run of short calls.
RESOLUTION_S = 0.001


@dataclass(frozen=True)
class Piece:
    """A padded batch, its number of rows, and its number of real tokens (attention mask 1)."""

    batch: Batch
    rows: int
    tokens: int

    @property
    def slots(self) -> int:
        """Number of positions, padded ones included."""
        return self.batch["input_ids"].size


@dataclass(frozen=True)
class Work:
    """Work done in a window. A call that is partly in the window counts with the fraction of its time in the window.

    `slots` are positions, padded ones included.
    """

    calls: float
    rows: float
    tokens: float
    slots: float


@dataclass
class Progress:
    """The count of work over time, written by the load and read by the meter's thread.

    Attributes:
        times_s: times at which calls ended, in seconds of the load's clock; the first is the start.
        done: numbers of calls, rows, real tokens and positions done by each of these times.
        late_s: delay of the last request behind its arrival time, s; 0 without a fixed rate.
    """

    times_s: list[float] = field(default_factory=list)
    done: list[tuple[int, int, int, int]] = field(default_factory=list)
    late_s: float = 0.0

    @property
    def calls(self) -> int:
        """Number of calls so far."""
        return self.done[-1][0]

    def start(self, now_s: float) -> None:
        """Start counting calls, rows, tokens and positions from zero at this time."""
        self.times_s.append(now_s)
        self.done.append((0, 0, 0, 0))

    def add(self, piece: Piece, now_s: float) -> None:
        """Count a batch that ended at this time."""
        calls, rows, tokens, slots = self.done[-1]
        total = (calls + 1, rows + piece.rows, tokens + piece.tokens, slots + piece.slots)
        if len(self.done) > 1 and now_s - self.times_s[-2] < RESOLUTION_S:
            self.done[-1], self.times_s[-1] = total, now_s
        else:
            # Append the work before its time, because a reader takes as many entries of `done` as there are times.
            self.done.append(total)
            self.times_s.append(now_s)

    def calls_by(self, moment_s: float) -> float:
        """Return the number of calls done by a moment; a call that still runs counts as the elapsed fraction."""
        after = bisect_right(self.times_s, moment_s)
        near = slice(max(0, after - 1), after + 1)
        times = self.times_s[near]
        return float(np.interp(moment_s, times, [done[0] for done in self.done[near][: len(times)]]))

    def between(self, opened_s: float, closed_s: float) -> Work:
        """Return the work done between two moments; the work within a call is interpolated linearly."""
        first = max(0, bisect_right(self.times_s, opened_s) - 1)
        last = bisect_left(self.times_s, closed_s) + 1
        times = np.array(self.times_s[first:last])
        columns = np.array(self.done[first : first + len(times)], np.float64).T
        return Work(*(float(np.subtract(*np.interp([closed_s, opened_s], times, column))) for column in columns))


def pieces(tokens: Tokens, batches: Iterable[Indices]) -> list[Piece]:
    """Return the batches, padded beforehand so that the load itself is only inference; `batches` has rows' indices."""
    lengths = tokens.lengths
    return [Piece(tokens.batch(rows), len(rows), int(lengths[rows].sum())) for rows in batches]


def shuffled(items: list[Piece], *, seed: int) -> Iterator[Piece]:
    """Yield the pieces endlessly, in a new random order in each pass, so that every window has a similar mixture."""
    generator = np.random.default_rng(seed)
    while True:
        for index in generator.permutation(len(items)):
            yield items[index]


def arrivals(rate: float, *, seed: int) -> Iterator[float]:
    """Yield arrival times of requests, in seconds from the start: one at a random moment of each interval of 1 / rate.

    The random gaps cannot synchronise with the sampling of a sensor, and a window still has `rate` requests per second,
    to within one request.
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
    """Run `measure` in a second thread and inference in this thread until `measure` returns; return its value.

    The load stays in the calling thread, because some runtimes work only in the thread that opened them. An error of
    `measure` ends both. After an error of `infer`, `cancel` is called and must make `measure` end.

    Args:
        infer: runs a batch.
        stream: an endless stream of batches.
        measure: called with the progress of the load.
        cancel: ends `measure` early.
        arriving: arrival times of single requests in seconds from the start; None for no pause between pieces.
        clock: returns seconds.
        sleep: waits for seconds.
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
