"""Spans of time, each with its place in the model. Profilers record them; totals and traces are made from them."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from toolchain.profile.groups import GROUPS, Place
from toolchain.records.profile import LayerTime

# Microseconds in a second.
US = 1e6


@dataclass(frozen=True)
class Span:
    """A span of time in microseconds. A span without a place encloses other spans and is not part of any total."""

    name: str
    place: Place | None
    start_us: float
    dur_us: float

    def later(self, us: float) -> "Span":
        """Return the same span `us` microseconds later."""
        return replace(self, start_us=self.start_us + us)


def end_to_end(pieces: Iterable[tuple[str, Place, float]]) -> list[Span]:
    """Return the spans for (name, place, microseconds), each of which begins when the previous one ends."""
    made, start = [], 0.0
    for name, place, dur in pieces:
        made.append(Span(name, place, start, dur))
        start += dur
    return made


@dataclass
class SpanRecorder:
    """Records spans on the host's clock, each with an NVTX range of the same name."""

    clock: Callable[[], float] = time.perf_counter
    ranges: "Ranges | None" = None
    spans: list[Span] = field(default_factory=list)

    @contextmanager
    def span(self, name: str, place: Place | None) -> Iterator[None]:
        """Record the time inside the context as a span."""
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
    """The functions that open and close an NVTX range, which Nsight Systems shows by name."""

    push: Callable[[str], Any]
    pop: Callable[[], Any]


def nvtx_ranges(device: str) -> Ranges | None:
    """Return PyTorch's NVTX functions; None on a CPU, and without a PyTorch with CUDA."""
    if device == "cpu":
        return None
    try:
        import torch
    except ImportError:
        return None
    return Ranges(torch.cuda.nvtx.range_push, torch.cuda.nvtx.range_pop) if torch.cuda.is_available() else None


def group_ms(calls: list[list[Span]]) -> dict[str, float]:
    """Return the time in ms per call of each group that has a span, in the order of GROUPS."""
    total: dict[str, float] = defaultdict(float)
    for call in calls:
        for span in call:
            if span.place:
                total[span.place.group] += span.dur_us
    return {group: total[group] / 1000 / len(calls) for group in GROUPS if group in total}


def layer_times(calls: list[list[Span]]) -> list[LayerTime]:
    """Return the mean time per call of the spans with the same name and place, in the order of the first call."""
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
