"""Which device a run uses."""

import os
import re

from toolchain.errors import MachineError, UsageError


def choose_device(asked: str, *, cuda: bool) -> str:
    """Return `cpu` or `cuda:N`; `auto` takes the GPU if `cuda` says that the backend has one.

    Raises:
        UsageError: no such device name.
        MachineError: a GPU was asked for and the backend has none.
    """
    if asked == "auto":
        return "cuda:0" if cuda else "cpu"
    if asked == "cpu":
        return asked
    if not re.fullmatch(r"cuda(:\d+)?", asked):
        raise UsageError(f"--device {asked}: unknown. Choose auto, cpu or cuda[:N].")
    if not cuda:
        raise MachineError(f"--device {asked}: no GPU that this backend can use. See `toolchain doctor`.")
    return asked if ":" in asked else f"{asked}:0"


def cpu_threads() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))
