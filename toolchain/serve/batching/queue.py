"""The queue of rows that wait for an engine: one first-in, first-out queue for each length bucket.

The batcher owns it and calls it on the event loop only, so nothing here is locked.
"""

import asyncio
import bisect
import itertools
from collections import deque
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from toolchain.base.tensors import Logits
from toolchain.checkpoint.tokenize import Tokens
from toolchain.serve.counters import Times
from toolchain.serve.limits import Limits


@dataclass(eq=False, slots=True)
class QueuedRequest:
    """One request from arrival to response: its rows, its deadline, and the logits that it has so far.

    Times are those of the batcher's clock, in nanoseconds.
    """

    tokens: Tokens
    result: "asyncio.Future[Logits]"
    # The number of the request, in the order of arrival.
    number: int
    submitted_ns: int
    deadline_ns: int
    # Rows that are still in the queue.
    queued: int
    # Rows whose logits are still missing.
    unfinished: int
    # float32 [rows, *row]; each batch fills in its rows.
    logits: Logits
    times: Times = field(default_factory=Times)

    def select(self, rows: list[int]) -> Tokens:
        """Return the tokens of some rows, whose indices are given in ascending order."""
        return self.tokens if len(rows) == len(self.tokens) else self.tokens.take(np.array(rows))


# Rows of one request that run in the same batch.
Group = tuple[QueuedRequest, list[int]]


def bucket_ends(max_length: int, *, per_octave: int = 1) -> tuple[int, ...]:
    """Return the largest length of each bucket, in tokens: 16, 32, 64 and so on, up to `max_length`.

    With `per_octave` above 1, each doubling is divided into that many buckets of equal width.
    """
    ends = [16]
    while ends[-1] < max_length:
        first = ends[-1]
        ends += [first + first * step // per_octave for step in range(1, per_octave + 1)]
    return (*(end for end in ends if end < max_length), max_length)


def capacity(end: int, limits: Limits) -> int:
    """Return how many rows of up to `end` tokens fit into one batch."""
    return max(1, min(limits.max_batch, limits.max_tokens // end))


class BatchQueue:
    """Queued rows in the order of arrival, by length bucket. `rows` is the number of queued rows."""

    def __init__(self, ends: tuple[int, ...], limits: Limits) -> None:
        """Make an empty queue for rows of up to `ends[-1]` tokens."""
        self._ends = ends
        self._capacities = [capacity(end, limits) for end in ends]
        self._buckets: list[deque[tuple[QueuedRequest, int]]] = [deque() for _ in ends]
        self.rows = 0

    def requests(self) -> set[QueuedRequest]:
        """Return the requests with at least one queued row."""
        return {request for bucket in self._buckets for request, _ in bucket}

    def put(self, request: QueuedRequest) -> None:
        """Append each row of a request to the bucket of its length."""
        for row, length in enumerate(request.tokens.lengths.tolist()):
            self._buckets[bisect.bisect_left(self._ends, length)].append((request, row))
        self.rows += request.queued

    def take_batch(self, most: int) -> list[Group]:
        """Remove and return up to `most` rows from the bucket whose first row has waited longest."""
        filled = [index for index, bucket in enumerate(self._buckets) if bucket]
        oldest = min(filled, key=lambda index: self._buckets[index][0][0].number)
        bucket = self._buckets[oldest]
        taken = [bucket.popleft() for _ in range(min(len(bucket), self._capacities[oldest], most))]
        groups = [(request, [row for _, row in rows]) for request, rows in itertools.groupby(taken, itemgetter(0))]
        for request, rows in groups:
            request.queued -= len(rows)
        self.rows -= len(taken)
        return groups

    def remove(self, requests: set[QueuedRequest]) -> None:
        """Remove every row of these requests that is still queued."""
        self._buckets = [deque(entry for entry in bucket if entry[0] not in requests) for bucket in self._buckets]
        for request in requests:
            self.rows -= request.queued
            request.queued = 0
