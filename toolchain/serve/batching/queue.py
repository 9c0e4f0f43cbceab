"""Rows that wait for an engine: a queue for each length bucket, and the next batch from them."""

import asyncio
import bisect
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from toolchain.checkpoint.tokenize import Tokens
from toolchain.runtimes.distance import Logits
from toolchain.serve.counters import Times
from toolchain.serve.limits import Limits


@dataclass(eq=False, slots=True)
class Request:
    """One caller's rows: `waiting` of them are in the line, `left` have no answer yet."""

    tokens: Tokens
    answer: "asyncio.Future[Logits]"
    number: int
    """Counts up, in the order of arrival."""
    submitted_ns: int
    deadline_ns: int
    waiting: int
    left: int
    logits: Logits
    times: Times = field(default_factory=Times)

    def part(self, rows: list[int]) -> Tokens:
        """Return the tokens of some of its rows, which are in rising order."""
        return self.tokens if len(rows) == len(self.tokens) else self.tokens.take(np.array(rows))


Group = tuple[Request, list[int]]
"""Rows of one request that run together."""


def bucket_ends(max_length: int, *, per_octave: int = 1) -> tuple[int, ...]:
    """Return the length buckets 16, 32, 64 ... up to `max_length` by their largest length, some more between each."""
    ends = [16]
    while ends[-1] < max_length:
        first = ends[-1]
        ends += [first + first * step // per_octave for step in range(1, per_octave + 1)]
    return (*(end for end in ends if end < max_length), max_length)


def capacity(end: int, limits: Limits) -> int:
    """Return how many rows of up to `end` tokens run together."""
    return max(1, min(limits.max_batch, limits.max_tokens // end))


class Line:
    """Requests in the order in which they came, by length bucket; `rows` of them wait."""

    def __init__(self, ends: tuple[int, ...], limits: Limits) -> None:
        """Take rows of up to `ends[-1]` tokens."""
        self._ends = ends
        self._capacities = [capacity(end, limits) for end in ends]
        self._queues: list[deque[tuple[Request, int]]] = [deque() for _ in ends]
        self.rows = 0

    def requests(self) -> set[Request]:
        """Return those with a row that waits."""
        return {request for queue in self._queues for request, _ in queue}

    def join(self, request: Request) -> None:
        """Put each of its rows behind those of its bucket."""
        for row, length in enumerate(request.tokens.lengths.tolist()):
            self._queues[bisect.bisect_left(self._ends, length)].append((request, row))
        self.rows += request.waiting

    def next_batch(self, most: int) -> list[Group]:
        """Take at most so many rows from the bucket whose first row has waited longest."""
        filled = [bucket for bucket, queue in enumerate(self._queues) if queue]
        bucket = min(filled, key=lambda index: self._queues[index][0][0].number)
        queue = self._queues[bucket]
        groups: list[Group] = []
        for _ in range(min(len(queue), self._capacities[bucket], most)):
            request, row = queue.popleft()
            if groups and groups[-1][0] is request:
                groups[-1][1].append(row)
            else:
                groups.append((request, [row]))
            request.waiting -= 1
            self.rows -= 1
        return groups

    def leave(self, requests: set[Request]) -> None:
        """Take out all that still waits of these."""
        self._queues = [deque(row for row in queue if row[0] not in requests) for queue in self._queues]
        for request in requests:
            self.rows -= request.waiting
            request.waiting = 0
