"""What is installed on a machine and what is missing: the output of `toolchain doctor --json`."""

from typing import Literal, TypedDict

State = Literal["ok", "missing", "broken"]


class FindingRecord(TypedDict):
    """What `toolchain doctor` found out about one package, tool or device."""

    name: str
    """Name of the package, tool or device, such as `torch` or `TensorRT`."""
    state: State
    """`ok`; `missing`: not installed, and needed by some commands only; `broken`: installed, but it cannot be used."""
    detail: str
    """Version or name that was found, or why it is missing or cannot be used."""
    advice: str
    """What to do about it; empty if nothing needs to be done."""


class DoctorRecord(TypedDict):
    """The output of `toolchain doctor --json`."""

    findings: list[FindingRecord]
    """One finding for each package, tool and device, in the order in which the build and evaluation steps need them."""
