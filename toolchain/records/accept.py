"""The report of `toolchain accept`, as it is printed with --json and written to accept.json."""

from typing import Literal, NotRequired, TypedDict

from toolchain.records.plan import PlanRecord
from toolchain.records.result import Environment, Result

Outcome = Literal["pass", "fail", "skipped"]


class CheckRecord(TypedDict):
    """The outcome of one check of `toolchain accept`."""

    name: str
    """Name of the check, such as `build int8`."""
    outcome: Outcome
    """`pass`, `fail`, or `skipped`: the check could not run, for the reason in `detail`. Only `fail` makes the command
    fail."""
    detail: str
    """What the check found, or why it failed or was skipped."""
    seconds: float
    """Duration of the check, in seconds."""


class AcceptRecord(TypedDict):
    """The outcomes of all checks on one machine, with the engines and results that the checks produced."""

    schema: int
    """Version of this format."""
    gpu: str
    """Name of the GPU."""
    tag: str
    """Compute capability and TensorRT version in words: `compute capability 7.5 with TensorRT 10.16.1.11`."""
    environment: Environment
    """Versions of the libraries, the processor and the GPU."""
    checks: list[CheckRecord]
    """The checks in the order in which they ran."""
    plans: dict[str, PlanRecord]
    """Name of a bundle -> the record of the engine that was built for it, as in `plan.json`."""
    results: list[Result]
    """Results of all evaluations that the checks ran."""
    created: str
    """Time at which the first check started, ISO 8601 with time zone."""
    running: NotRequired[str | None]
    """Name of the check that is running; null when all checks have ended. If a check brings the machine down, this key
    names that check. Only in accept.json."""
    files: NotRequired[list[str]]
    """Paths of accept.json and accept.md. Only in the printed record, not in accept.json."""
