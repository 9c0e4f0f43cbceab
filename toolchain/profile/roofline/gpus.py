"""The data sheets of GPUs, from engine/gpus.toml. To add a GPU, add an entry with its source there."""

import functools
import re
from dataclasses import dataclass

from toolchain.engine.targets import TABLE
from toolchain.errors import UsageError, meant
from toolchain.profile.roofline.ceiling import Ceiling
from toolchain.recipe.options import load_toml

# Compute capability, times ten, of Hopper: the GPUs in the table for which TensorRT-RTX does not compile.
HOPPER = 90


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The data sheet of a GPU: dense peaks in 10^12 operations/s by precision, memory, cache size and power limit.

    `sm` is the compute capability times ten: 75 for a T4.
    """

    name: str
    devices: list[str]
    sm: int
    tera_per_s: dict[str, float]
    gb_per_s: float
    memory_gb: float
    cache_mb: float
    tdp_w: float
    source: str

    @property
    def ceiling(self) -> Ceiling:
        """The peaks of the data sheet, in operations/s and bytes/s."""
        peaks = {precision: tera * 1e12 for precision, tera in self.tera_per_s.items()}
        return Ceiling(peaks, self.gb_per_s * 1e9)


@functools.cache
def load_gpus() -> dict[str, Gpu]:
    """Return short name -> GPU, for the entries of the table that have a data sheet."""
    return {name: Gpu(**values) for name, values in load_toml(TABLE).items() if "source" in values}


def find_gpu(name: str) -> Gpu:
    """Return a GPU by its short name.

    Raises:
        UsageError: the table has no such GPU.
    """
    known = load_gpus()
    if name.lower() not in known:
        raise UsageError(f"--gpu {name}: this GPU is unknown.{meant(name, known)} Choose one of {', '.join(known)}.")
    return known[name.lower()]


def find_target(name: str, sm: int) -> Gpu:
    """Return the GPU for a target of TensorRT-RTX, which is the name of a GPU or a compute capability such as `sm86`.

    The name `a100` gives `a100-40`, and `sm86` gives the first GPU of compute capability 8.6.

    Raises:
        UsageError: the table has no data sheet for the target.
    """
    known, asked = load_gpus(), re.sub(r"[- ]", "", name.lower())
    same = [gpu for gpu in known.values() if gpu.sm == sm]
    named = [gpu for short, gpu in known.items() if short.partition("-")[0] == asked]
    if asked.startswith("sm") and same:
        return same[0]
    if named:
        return named[0]
    if same:
        raise UsageError(
            f"--target {name}: gpus.toml has no data sheet of this GPU. Give --target sm{sm} for the figures of the "
            f"{same[0].name}, which has the same compute capability."
        )
    names = ", ".join(short for short, gpu in known.items() if gpu.sm != HOPPER)
    raise UsageError(f"--target {name}: gpus.toml has no data sheet of such a GPU. Choose one of {names}.")


def gpu_of(device_name: str) -> Gpu | None:
    """Return the GPU that the driver calls `device_name`; None if the table does not have it."""
    return next((gpu for gpu in load_gpus().values() if device_name in gpu.devices), None)
