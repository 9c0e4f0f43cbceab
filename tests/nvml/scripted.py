"""A libnvidia-ml.so.1 that answers as a scenario says (fakenvml.c), for tests that run in a process of their own."""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.meters.nvml import Unavailable


@dataclass(frozen=True)
class ScriptedNvml:
    """The library, and the file that its scenario is written to.

    A test that takes it (the fixtures `nvml` and `old_nvml`) runs in a process of its own, in which nvidia-ml-py finds
    the library that `load` has loaded.
    """

    library: Path
    script: Path

    def load(self, scenario: str) -> None:
        """Load the library with a scenario, whose time stands still unless it says `clock real`."""
        self.script.write_text(f"clock manual\n{scenario}")
        wrong_line = self.loaded.fakenvml_load(str(self.script).encode())
        assert wrong_line == 0, wrong_line

    @functools.cached_property
    def loaded(self) -> ctypes.CDLL:
        return load_library(self.library)

    def advance(self, seconds: float) -> None:
        self.loaded.fakenvml_advance_us(round(seconds * 1e6))

    def now(self) -> float:
        """Return the seconds since `load`."""
        return float(self.loaded.fakenvml_now_us()) / 1e6

    def clock_mhz(self, index: int) -> int:
        """Return the clock that a load runs at now."""
        return int(self.loaded.fakenvml_clock_mhz(index))

    def setter_calls(self) -> int:
        """Return how often a setter was called since the scenario began, in every process."""
        return int(self.loaded.fakenvml_setter_calls())

    def settings(self, index: int) -> tuple[int, int, int]:
        """Return the lock in MHz (0, 0 without one) and the power limit in mW."""
        found = (ctypes.c_uint * 3)()
        self.loaded.fakenvml_settings(index, found)
        return found[0], found[1], found[2]

    def true_joules(self, index: int, start_s: float, end_s: float) -> float:
        """Return the energy that the scenario gives to a GPU."""
        return float(self.loaded.fakenvml_true_joules(index, round(start_s * 1e6), round(end_s * 1e6)))


@functools.cache
def load_library(path: Path) -> ctypes.CDLL:
    """Load the library so that whoever asks for libnvidia-ml.so.1 afterwards gets it."""
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    library.fakenvml_advance_us.argtypes = [ctypes.c_uint64]
    library.fakenvml_now_us.restype = ctypes.c_uint64
    library.fakenvml_true_joules.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64]
    library.fakenvml_true_joules.restype = ctypes.c_double
    return library


def reason_of(call: Callable[..., Any], *arguments: Any) -> str | None:
    """Return the reason for which a call of NVML gives no number."""
    try:
        call(*arguments)
    except Unavailable as error:
        return error.reason
    return None
