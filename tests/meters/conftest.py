"""NVML as a scenario says: the real nvidia-ml-py on a scripted libnvidia-ml (tests/nvml), in processes of their own."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

PRELUDE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
library.fakenvml_advance_us.argtypes = [ctypes.c_uint64]
library.fakenvml_true_joules.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64]
library.fakenvml_true_joules.restype = ctypes.c_double
assert (wrong_line := library.fakenvml_load(sys.argv[2].encode())) == 0, wrong_line
def advance(seconds): library.fakenvml_advance_us(round(seconds * 1e6))
def true_joules(index, start, end): return library.fakenvml_true_joules(index, round(start * 1e6), round(end * 1e6))
from toolchain.meters.nvml import Unavailable, all_devices, open_nvml, visible_devices
def reason(call, *arguments):
    try:
        call(*arguments)
    except Unavailable as why:
        return why.reason
"""


@pytest.fixture
def run(library: Path, root: Path, tmp_path: Path) -> Callable[..., None]:
    """Run a snippet in a process in which NVML answers as a scenario says; keywords are its environment."""

    def go(scenario: str, code: str, *, library: Path = library, **environment: str) -> None:
        script = tmp_path / "scenario"
        script.write_text(f"clock manual\n{scenario}")
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(library), str(script)],
            env=os.environ | environment | {"PYTHONPATH": str(root)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return go
