"""All contenders on the same rows, interleaved: rows/s, accuracy, and time outside the runtime."""

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
    """One contender. `outside` is the share of the time outside the runtime; None if it is unknown."""

    name: str
    ours: bool
    rows_per_s: float
    to_pipeline: Ratio
    accuracy: float
    points_below: float
    outside: float | None


@dataclass(frozen=True)
class Speed:
    """The table, the contenders that were left out with their reasons, and the timed calls."""

    rows: list[Row]
    left_out: dict[str, str]
    calls: Calls
    texts: int


def measure(workload: Workload, names: Collection[str], *, rounds: int, limit: int | None) -> Speed:
    """Run the contenders of these names, and the pipeline, which is the baseline."""
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
        """Return the task's metric; the evaluator computes intervals too, as in `toolchain eval`."""
        scores = score(judge(found), resolved.head, seed=0)
        return float(scores["metrics"][resolved.task.primary])

    return Speed(tabulate(calls, judged, len(rows)), left_out, calls, len(rows))


def tabulate(calls: Calls, judged: Callable[[Pass], float], texts: int) -> list[Row]:
    """Return a row for each contender; `judged` turns a pass over `texts` rows into a metric."""
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
    """Return the median share of the time from texts to metrics that is outside the runtime."""
    shares = []
    for call in calls:
        if call.gave.runtime_s is None:
            return None
        start = time.perf_counter()
        judged(call.gave)
        whole_s = call.wall_s + time.perf_counter() - start
        shares.append(1 - call.gave.runtime_s / whole_s)
    return statistics.median(shares)
