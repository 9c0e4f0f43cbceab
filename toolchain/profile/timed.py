"""Calls of one batch from text to logits, with a profiler and without, in turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolchain.evaluation.target import Target
from toolchain.profile.groups import NOWHERE, Place
from toolchain.profile.nsys import CALL, INFER
from toolchain.profile.probes import open_probe
from toolchain.profile.spans import Span, Watch, group_ms, nvtx_ranges
from toolchain.profile.variants import Load
from toolchain.runtimes import open_runtime
from toolchain.tensors import Infer

BLOCKS, CALLS, WARMUP = 2, 8, 3
"""So many blocks of each kind, each of so many calls behind so many that are not counted."""

LAUNCHES = "launches"
"""The clock of a probe that sees when kernels are queued, not when they run."""


@dataclass(frozen=True)
class Timed:
    """Profiled calls, each as spans on the host's clock, and the milliseconds of calls without a profiler."""

    calls: list[list[Span]]
    wall_ms: list[float]
    clock: str

    @property
    def profiled_ms(self) -> float:
        """Milliseconds of a profiled call."""
        return statistics.fmean(span.dur_us / 1000 for call in self.calls for span in call if span.name == CALL)

    @property
    def groups(self) -> dict[str, float]:
        """Milliseconds a call by group; what lies between the placed spans of a call is `other`."""
        ms = group_ms(self.calls)
        between = self.profiled_ms - sum(ms.values())
        return {**ms, "other": ms.get("other", 0.0) + max(0.0, between)}

    def sums(self) -> dict[str, Any]:
        """Return what a call takes without the profiler and with it, and the share of the model's time with a place.

        `wall_ms` is a median, as a disturbed call says nothing of the others; `profiled_ms` is the mean, which the
        groups add up to; `overhead` is by how much of the former the latter is more.
        """
        wall = statistics.median(self.wall_ms)
        spans = [span for call in self.calls for span in call if span.place and span.name not in (TOKENISE, BATCH)]
        total = sum(span.dur_us for span in spans)
        placed = sum(span.dur_us for span in spans if span.place != NOWHERE)
        return {
            "calls": len(self.calls),
            "wall_ms": wall,
            "profiled_ms": self.profiled_ms,
            "overhead": self.profiled_ms / wall - 1,
            "placed_share": placed / total if total else None,
            "clock": self.clock,
        }


TOKENISE, BATCH = "tokenise", "batch"
"""What the host does before the runtime."""


def time_calls(target: Target, load: Load) -> Timed:
    """Time the load on the subject's backend, CUDA graphs apart.

    Raises:
        ToolchainError: see errors.py.
    """
    choices = {"device": target.device, "precision": target.precision}
    wall_ms: list[float] = []
    calls: list[list[Span]] = []
    clock = ""
    for _ in range(BLOCKS):
        with open_runtime(target.backend, target.model, **choices) as infer:
            wall_ms += milliseconds(load.work(infer))
        with open_probe(target.backend, target.model, **choices) as probe:
            clock, ranges = probe.clock, nvtx_ranges(target.device)
            frames = [_call(load, probe.infer, Watch(ranges=ranges)) for _ in range(WARMUP + CALLS)]
            inner = probe.spans()
        calls += [_joined(*both) for both in zip(frames[WARMUP:], inner[WARMUP:], strict=True)]
    return Timed(calls, wall_ms, clock)


def milliseconds(work: Callable[[], object]) -> list[float]:
    """Return what each call takes, behind a warm-up."""
    times = []
    for _ in range(WARMUP + CALLS):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return times[WARMUP:]


def _call(load: Load, infer: Infer, watch: Watch) -> list[Span]:
    """Run one call; return what the host did."""
    with watch.span(CALL, None):
        with watch.span(TOKENISE, Place("tokenise")):
            tokens = load.tokens()
        with watch.span(BATCH, Place("copy")):
            batch = load.batch(tokens)
        with watch.span(INFER, None):
            infer(batch)
    return watch.spans


def _joined(frames: list[Span], inner: list[Span]) -> list[Span]:
    """Return one call's spans on one clock: the probe's begin where the host called it."""
    start = next(span.start_us for span in frames if span.name == INFER)
    return [*frames, *(span.later(start) for span in inner)]
