"""The report of `toolchain accept`: what it prints with --json, and accept.json."""

from typing import Literal, NotRequired, TypedDict

from toolchain.records.plan import PlanRecord
from toolchain.records.result import Environment, Result

Outcome = Literal["pass", "fail", "skipped"]


class CheckRecord(TypedDict):
    """One check."""

    name: str
    """Name of the check, such as `build int8`."""
    outcome: Outcome
    """`pass`, `fail`, or `skipped`: this machine cannot run it, and need not."""
    detail: str
    """What was found, or why it failed or was skipped."""
    seconds: float
    """Duration, seconds."""


class AcceptRecord(TypedDict):
    """Every check on one machine."""

    schema: int
    """Version of this format."""
    gpu: str
    """Name of the GPU."""
    tag: str
    """Compute capability and TensorRT version, as in the folder of a plan."""
    environment: Environment
    """Versions of the libraries, and the hardware."""
    checks: list[CheckRecord]
    """The checks in the order in which they ran."""
    plans: dict[str, PlanRecord]
    """Name of a bundle -> the record of its engine."""
    results: list[Result]
    """The results of the evaluations."""
    created: str
    """Time of the start, ISO 8601 with time zone."""
    running: NotRequired[str | None]
    """In accept.json only: the check that is running, null at the end. It names a check that ended the process."""
    files: NotRequired[list[str]]
    """In the printed record only: paths of accept.json and accept.md."""
