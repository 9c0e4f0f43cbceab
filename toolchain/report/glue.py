"""The GLUE score: the mean of a runtime's points over the tasks of GLUE, if all nine tasks were measured.

As in the benchmark (Wang et al., 2018), the points of a task are 100 times its metric, or 100 times the mean of its two
metrics. WNLI must be measured, but is not part of the mean, as is usual since BERT (Devlin et al., 2019, section 4.1):
the labels of its validation rows contradict those of its train rows. A mean over some of the tasks is not a GLUE score,
so a runtime without all tasks has none.
"""

from collections import Counter
from dataclasses import dataclass

from toolchain.records.result import Result
from toolchain.records.sweep import GlueScore
from toolchain.report.columns import Number
from toolchain.report.table import names_of

TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")

# The task that is shown, but is not part of the mean.
LEFT_OUT = "wnli"


@dataclass(frozen=True)
class Score:
    """The GLUE score of one runtime, and its points by task.

    `mean` is the score. It is None, and `reason` says why, unless each task has exactly one result.
    """

    name: str
    tasks: dict[str, Number]
    missing: list[str]
    mean: Number | None
    reason: str | None = None

    def to_json(self) -> GlueScore:
        """Return the score as a record of JSON, as in the record of a sweep."""
        return {
            "name": self.name,
            "score": self.mean.value if self.mean else None,
            "reason": self.reason,
            "points": {task: one.value for task, one in self.tasks.items()},
            "missing": self.missing,
        }


def scores(results: list[Result]) -> list[Score]:
    """Return the score of each runtime and variant that was evaluated on validation rows of GLUE tasks.

    A runtime with several results that are all of the same task is left out: that is a study of one task.
    """
    found: dict[str, list[Result]] = {}
    for result in results:
        if result["task"] in TASKS and result["split"] == "validation":
            (name,) = names_of([result])
            found.setdefault(name, []).append(result)
    suites = {name: its for name, its in found.items() if len(its) == 1 or len({one["task"] for one in its}) > 1}
    return [_score(name, its) for name, its in suites.items()]


def _score(name: str, results: list[Result]) -> Score:
    tasks = {result["task"]: _points(result) for result in results}
    missing = [task for task in TASKS if task not in tasks]
    counts = Counter(result["task"] for result in results)
    if twice := sorted(task for task, times in counts.items() if times > 1):
        return Score(name, tasks, missing, None, f"several results for {', '.join(twice)}: give one for each task")
    if missing:
        return Score(name, tasks, missing, None, f"{len(tasks)} of {len(TASKS)} tasks measured")
    counted = [one for task, one in tasks.items() if task != LEFT_OUT]
    value = sum(one.value for one in counted) / len(counted)
    sources = " and ".join(one.source for one in counted)
    return Score(name, tasks, missing, Number(f"{value:.1f}", value, "mean of the tasks without WNLI", sources))


def _points(result: Result) -> Number:
    """Return the points of a result's task: 100 times the mean of its metrics."""
    value = 100 * sum(result["metrics"].values()) / len(result["metrics"])
    keys = " and ".join(f"metrics.{name}" for name in result["metrics"])
    return Number(f"{value:.1f}", value, keys, result["file"])
