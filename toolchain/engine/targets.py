"""The GPUs that TensorRT-RTX compiles for: their names, and their compute capabilities."""

import functools
import re
from pathlib import Path
from typing import Any

from toolchain.errors import MachineError, UsageError
from toolchain.recipe.options import load_toml
from toolchain.recipe.tables import QUANTIZED

# The only release whose API this module uses.
MAJORS = ("rtx",)

# Table of GPUs with the figures of their data sheets. profile/roofline/gpus.py reads it too.
TABLE = Path(__file__).with_name("gpus.toml")


@functools.cache
def capabilities() -> dict[str, int]:
    """Return target name -> compute capability, times ten. The GPUs `a100-40` and `a100-80` are one target, `a100`."""
    return {name.partition("-")[0]: int(gpu["sm"]) for name, gpu in load_toml(TABLE).items()}


def compute_capabilities(trt: Any) -> list[int]:
    """Return the compute capabilities, times ten, that this TensorRT-RTX compiles for, in rising order."""
    names = (re.fullmatch(r"SM(\d+)", name) for name in trt.ComputeCapability.__members__)
    return sorted(int(found[1]) for found in names if found)


def parse_targets(trt: Any, text: str) -> list[int]:
    """Parse targets such as `t4,l4,sm86` into compute capabilities, times ten, each once, in the given order.

    Raises:
        UsageError: a name is unknown, or TensorRT-RTX does not compile for it.
    """
    known = compute_capabilities(trt)
    found = [_parsed(name.strip().lower(), known) for name in text.split(",")]
    return list(dict.fromkeys(found))


def named_targets(text: str) -> list[int]:
    """Parse targets such as `t4,l4,sm86` into compute capabilities, times ten, and skip names that are unknown."""
    return [sm for name in text.split(",") if (sm := _capability(name.strip().lower())) is not None]


def _capability(name: str) -> int | None:
    number = re.fullmatch(r"sm_?(\d+)", name)
    return int(number[1]) if number else capabilities().get(name.replace("-", "").replace(" ", ""))


def _parsed(name: str, known: list[int]) -> int:
    sm = _capability(name)
    if sm not in known:
        gpus = [gpu for gpu, capability in capabilities().items() if capability in known]
        names = ", ".join([*gpus, *(f"sm{one}" for one in known)])
        raise UsageError(f"--target {name}: TensorRT-RTX does not compile for this GPU. Choose one or more of {names}.")
    return sm


def require_units(precision: str, sm: int, where: str) -> None:
    """Refuse a precision that a GPU has no hardware for. `sm` is its compute capability times ten: 75 for a T4.

    Raises:
        MachineError: the GPU lacks it. The message says which compute capability is needed.
    """
    quantized = QUANTIZED.get(precision)
    if quantized is not None and sm < quantized.sm:
        raise MachineError(
            f"{where}: compute capability {sm // 10}.{sm % 10} has no {quantized.title} GEMMs, which need "
            f"{quantized.sm // 10}.{quantized.sm % 10} ({quantized.since}) or later. "
            "Build with --precision int8, or choose a later GPU, such as l4."
        )


def set_target(trt: Any, config: Any, sm: int) -> None:
    """Make a build compile for a single compute capability; `sm` is its value times ten: 75 for a T4."""
    config.num_compute_capabilities = 1  # must be set before the capability
    config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{sm}"], 0)
