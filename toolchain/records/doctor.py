"""What a machine has and lacks: the output of `toolchain doctor --json`."""

from typing import Literal, TypedDict

State = Literal["ok", "missing", "broken"]


class FindingRecord(TypedDict):
    """One thing that was looked for."""

    name: str
    """What was looked for, such as `torch` or `TensorRT`."""
    state: State
    """`ok`; `missing`: it is not there, and only some steps need it; `broken`: it is there and cannot be used."""
    detail: str
    """What was found: a version, a name, or why it is missing."""
    advice: str
    """What to do; empty if nothing."""


class DoctorRecord(TypedDict):
    """The whole output of `toolchain doctor --json`."""

    findings: list[FindingRecord]
    """Everything that was looked for, in the order in which the steps need it."""
