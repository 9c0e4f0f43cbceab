"""Time calls of one batch from text to logits, alternately with and without a profiler."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from toolchain.base.progress import Advance, bar
from toolchain.base.tensors import Infer
from toolchain.evaluation.target import Target
from toolchain.profile.groups import NOWHERE, Place
from toolchain.profile.nsys import CALL, INFER
from toolchain.profile.profilers import open_profiler
from toolchain.profile.spans import Span, SpanRecorder, group_ms, nvtx_ranges
from toolchain.profile.variants import Workload
from toolchain.records.profile import CallTimes
from toolchain.runtimes import open_runtime

# Calls are timed in blocks: BLOCKS without a profiler and as many with one, in turns. A block has WARMUP calls that are
# not counted, then CALLS calls.
BLOCKS, CALLS, WARMUP = 2, 8, 3

# Value of `clock` for a profiler that times the launches of kernels instead of the kernels.
LAUNCHES = "launches"

# Names of the spans on the host before the runtime runs.
TOKENISE, BATCH = "tokenise", "batch"


@dataclass(frozen=True)
class Timed:
    """The timed calls of a profile.

    `calls`: spans of each profiled call, on the host's clock.
    `wall_ms`: times of calls without a profiler, ms.
    `clock`: name of the clock that the profiler uses.
    """

    calls: list[list[Span]]
    wall_ms: list[float]
    clock: str

    @property
    def profiled_ms(self) -> float:
        """Mean time of a profiled call, ms."""
        return statistics.fmean(span.dur_us / 1000 for call in self.calls for span in call if span.name == CALL)

    @property
    def groups(self) -> dict[str, float]:
        """Time of each group in ms per call; the time between spans belongs to `other`."""
        ms = group_ms(self.calls)
        between = self.profiled_ms - sum(ms.values())
        return {**ms, "other": ms.get("other", 0.0) + max(0.0, between)}

    def sums(self) -> CallTimes:
        """Return the times of a call, and the fraction of the model's time that is assigned to a part.

        `wall_ms` is the median, so that a disturbed call has no effect. `profiled_ms` is the mean, because the times of
        the groups add up to it.
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


def time_calls(target: Target, load: Workload) -> Timed:
    """Time calls of the workload on the target's backend, without CUDA graphs.

    Raises:
        ToolchainError: see errors.py.
    """
    choices = {"device": target.device, "precision": target.precision}
    wall_ms: list[float] = []
    calls: list[list[Span]] = []
    clock = ""
    with bar(2 * BLOCKS * (WARMUP + CALLS), "timing") as advance:
        for _ in range(BLOCKS):
            advance(0)  # shows the bar now, because opening takes seconds
            with open_runtime(target.backend, target.model, **choices) as infer:
                wall_ms += milliseconds(load.work(infer), advance=advance)
            with open_profiler(target.backend, target.model, **choices) as profiled:
                clock, ranges = profiled.clock, nvtx_ranges(target.device)
                frames = []
                for _ in range(WARMUP + CALLS):
                    frames.append(_call(load, profiled.infer, SpanRecorder(ranges=ranges)))
                    advance()
                inner = profiled.spans()
            calls += [_joined(*both) for both in zip(frames[WARMUP:], inner[WARMUP:], strict=True)]
    return Timed(calls, wall_ms, clock)


def milliseconds(work: Callable[[], object], *, advance: Advance = lambda count=1: None) -> list[float]:
    """Return the time of each call after a warm-up, in ms; `advance` is called after every call, to show progress."""
    times = []
    for _ in range(WARMUP + CALLS):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
        advance()
    return times[WARMUP:]


def _call(load: Workload, infer: Infer, recorder: SpanRecorder) -> list[Span]:
    """Run one call; return the spans that the host recorded."""
    with recorder.span(CALL, None):
        with recorder.span(TOKENISE, Place("tokenise")):
            tokens = load.tokens()
        with recorder.span(BATCH, Place("copy")):
            batch = load.batch(tokens)
        with recorder.span(INFER, None):
            infer(batch)
    return recorder.spans


def _joined(frames: list[Span], inner: list[Span]) -> list[Span]:
    """Return all spans of one call on the host's clock: those of the host (`frames`) and of the profiler (`inner`).

    The profiler's spans begin when the host called the runtime.
    """
    start = next(span.start_us for span in frames if span.name == INFER)
    return [*frames, *(span.later(start) for span in inner)]
