"""The GPUs that TensorRT-RTX compiles for: their names, and their compute capabilities."""

import functools
import re
from pathlib import Path
from typing import Any

from toolchain.errors import MachineError, UsageError
from toolchain.recipe.options import load_toml
from toolchain.recipe.tables import QUANTIZED

# The releases whose API this module uses.
MAJORS = ("rtx",)

# The GPUs and their data sheets, which roofline/gpus.py reads.
TABLE = Path(__file__).with_name("gpus.toml")


@functools.cache
def capabilities() -> dict[str, int]:
    """Return name of a target -> compute capability, times ten: `a100` for `a100-40` and `a100-80`."""
    return {name.partition("-")[0]: int(gpu["sm"]) for name, gpu in load_toml(TABLE).items()}


def compute_capabilities(trt: Any) -> list[int]:
    """Return the compute capabilities, times ten, that a TensorRT-RTX compiles for, in rising order."""
    names = (re.fullmatch(r"SM(\d+)", name) for name in trt.ComputeCapability.__members__)
    return sorted(int(found[1]) for found in names if found)


def parse_targets(trt: Any, text: str) -> list[int]:
    """Return the compute capabilities, times ten, that `t4,l4,sm86` names, each once, in its order.

    Raises:
        UsageError: a name is unknown, or TensorRT-RTX does not compile for it.
    """
    known = compute_capabilities(trt)
    found = [_parsed(name.strip().lower(), known) for name in text.split(",")]
    return list(dict.fromkeys(found))


def named_targets(text: str) -> list[int]:
    """Return the compute capabilities, times ten, of those targets in `t4,l4,sm86` whose names are known."""
    return [sm for name in text.split(",") if (sm := _capability(name.strip().lower())) is not None]


def _capability(name: str) -> int | None:
    number = re.fullmatch(r"sm_?(\d+)", name)
    return int(number[1]) if number else capabilities().get(name.replace("-", "").replace(" ", ""))


def _parsed(name: str, known: list[int]) -> int:
    sm = _capability(name)
    if sm not in known:
        gpus = [gpu for gpu, capability in capabilities().items() if capability in known]
        names = ", ".join([*gpus, *(f"sm{one}" for one in known)])
        raise UsageError(f"--target {name}: TensorRT-RTX does not compile for it. Choose one or several of {names}.")
    return sm


def require_units(precision: str, sm: int, where: str) -> None:
    """Refuse a precision for whose GEMMs a compute capability, times ten, has no units.

    Raises:
        MachineError: it says what the precision needs.
    """
    quantized = QUANTIZED.get(precision)
    if quantized is not None and sm < quantized.sm:
        raise MachineError(
            f"{where}: compute capability {sm // 10}.{sm % 10} has no {quantized.title}, which needs "
            f"{quantized.sm // 10}.{quantized.sm % 10} ({quantized.since}) or later. "
            "Build with --precision int8, or choose a later GPU, such as l4."
        )


def set_target(trt: Any, config: Any, sm: int) -> None:
    """Let a build compile for one compute capability, times ten."""
    config.num_compute_capabilities = 1  # before the capability itself
    config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{sm}"], 0)
