"""Pieces of time, each with its place in the model: what probes give, and totals and traces are made of."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from toolchain.profile.groups import GROUPS, Place

US = 1e6
"""Microseconds in a second."""


@dataclass(frozen=True)
class Span:
    """A piece of time, microseconds. Without a place it is a frame around others, and counts for nothing itself."""

    name: str
    place: Place | None
    start_us: float
    dur_us: float

    def later(self, us: float) -> "Span":
        """Return the same piece of time that many microseconds later."""
        return replace(self, start_us=self.start_us + us)


def end_to_end(pieces: Iterable[tuple[str, Place, float]]) -> list[Span]:
    """Return spans of (name, place, microseconds), each from where the one before it ends."""
    made, start = [], 0.0
    for name, place, dur in pieces:
        made.append(Span(name, place, start, dur))
        start += dur
    return made


@dataclass
class Watch:
    """Records spans on the host's clock, and opens an NVTX range of the same name around each."""

    clock: Callable[[], float] = time.perf_counter
    ranges: "Ranges | None" = None
    spans: list[Span] = field(default_factory=list)

    @contextmanager
    def span(self, name: str, place: Place | None) -> Iterator[None]:
        """Record what happens inside."""
        if self.ranges:
            self.ranges.push(name if place is None else str(place))
        start = self.clock()
        try:
            yield
        finally:
            end = self.clock()
            if self.ranges:
                self.ranges.pop()
            self.spans.append(Span(name, place, start * US, (end - start) * US))


@dataclass(frozen=True)
class Ranges:
    """How NVTX ranges are opened and closed, so that Nsight Systems shows the names that we do."""

    push: Callable[[str], Any]
    pop: Callable[[], Any]


def nvtx_ranges(device: str) -> Ranges | None:
    """Return NVTX as PyTorch has it; None on a CPU and without a PyTorch that has CUDA."""
    if device == "cpu":
        return None
    try:
        import torch
    except ImportError:
        return None
    return Ranges(torch.cuda.nvtx.range_push, torch.cuda.nvtx.range_pop) if torch.cuda.is_available() else None


def group_ms(calls: list[list[Span]]) -> dict[str, float]:
    """Return milliseconds a call of each group of GROUPS that has any."""
    total: dict[str, float] = defaultdict(float)
    for call in calls:
        for span in call:
            if span.place:
                total[span.place.group] += span.dur_us
    return {group: total[group] / 1000 / len(calls) for group in GROUPS if group in total}


def rows(calls: list[list[Span]]) -> list[dict[str, Any]]:
    """Return what was run, by name, in order: {"name", "group", "layer", "calls", "ms"}, calls and ms of one call."""
    total: dict[tuple[str, Place], list[float]] = defaultdict(list)
    for call in calls:
        for span in call:
            if span.place:
                total[span.name, span.place].append(span.dur_us / 1000)
    return [
        {
            "name": name,
            "group": place.group,
            "layer": place.layer,
            "calls": len(found) / len(calls),
            "ms": sum(found) / len(calls),
        }
        for (name, place), found in total.items()
    ]
