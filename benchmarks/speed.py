"""The comparison of all contenders on the same rows, interleaved: rows/s, accuracy, and time outside the runtime."""

import contextlib
import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from contenders import CONTENDERS, OURS, PIPELINE, Contender, LeftOut, Pass
from interleave import Ratio, Timed, interleaved, ratio
from workload import Workload

from toolchain.evaluation.measure import score
from toolchain.heads.predictions import Predictions

Calls = dict[str, list[Timed[Pass]]]


@dataclass(frozen=True)
class Row:
    """The figures of one contender, a row of the table.

    `to_pipeline` is the pipeline's time divided by this contender's. `points_below` says how many points (1/100) the
    accuracy is below the pipeline's. `outside` is the fraction of the time spent outside the runtime, such as in
    tokenising; None if the contender does not report its time in the runtime.
    """

    name: str
    ours: bool
    rows_per_s: float
    to_pipeline: Ratio
    accuracy: float
    points_below: float
    outside: float | None


@dataclass(frozen=True)
class Speed:
    """The result of a comparison: the table, contender -> why it was left out, and the timed calls.

    `texts` is the number of rows in each pass.
    """

    rows: list[Row]
    left_out: dict[str, str]
    calls: Calls
    texts: int


def measure(workload: Workload, names: Collection[str], *, rounds: int, limit: int | None) -> Speed:
    """Run the contenders with these names and the pipeline, which is the baseline, and return their figures.

    They run the first `limit` validation rows, or all of them without `limit`.
    """
    rows = workload.rows("validation")
    rows = rows.take(range(min(len(rows), limit or len(rows))))
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        opened: dict[str, Contender] = {}
        for name in (name for name in CONTENDERS if name in {PIPELINE, *names}):
            try:
                opened[name] = stack.enter_context(CONTENDERS[name](workload))
            except LeftOut as why:
                left_out[name] = str(why)
        calls = interleaved({name: partial(once, rows.texts) for name, once in opened.items()}, rounds)
    resolved = workload.resolved
    references = resolved.head.read(rows)

    def judge(found: Pass) -> Predictions:
        return resolved.head.predict(references, found.logits)

    def judged(found: Pass) -> float:
        """Return the main metric. Intervals are computed too, so that this takes as long as in `toolchain eval`."""
        scores = score(judge(found), resolved.head, seed=0)
        return float(scores["metrics"][resolved.task.primary])

    return Speed(tabulate(calls, judged, len(rows)), left_out, calls, len(rows))


def tabulate(calls: Calls, judged: Callable[[Pass], float], texts: int) -> list[Row]:
    """Return the figures of each contender. `judged` returns the metric of a pass; a pass has `texts` rows."""
    first = judged(calls[PIPELINE][0].gave)
    made = []
    for name, own in calls.items():
        metric = judged(own[0].gave)
        made.append(
            Row(
                name=name,
                ours=name in OURS,
                rows_per_s=texts / statistics.median(call.wall_s for call in own),
                to_pipeline=ratio(calls[PIPELINE], own),
                accuracy=metric,
                points_below=100 * (first - metric),
                outside=outside(own, judged),
            )
        )
    return made


def outside(calls: list[Timed[Pass]], judged: Callable[[Pass], float]) -> float | None:
    """Return the fraction of the time from texts to metrics that is spent outside the runtime, as a median over calls.

    Returns None if a call does not report its time within the runtime.
    """
    shares = []
    for call in calls:
        if call.gave.runtime_s is None:
            return None
        start = time.perf_counter()
        judged(call.gave)
        whole_s = call.wall_s + time.perf_counter() - start
        shares.append(1 - call.gave.runtime_s / whole_s)
    return statistics.median(shares)
