"""NVML as a scenario says: the real nvidia-ml-py on a scripted libnvidia-ml (tests/nvml), in processes of their own."""

import os
import shutil
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


@pytest.fixture(scope="session")
def compile_nvml(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what builds the scripted library, with options for the compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        assert "CI" not in os.environ
        pytest.skip("no C compiler to build the scripted libnvidia-ml with")

    def build(*options: str) -> Path:
        made = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
        command = [compiler, "-O2", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", *options, "-o", str(made)]
        subprocess.run([*command, str(root / "tests/nvml/fakenvml.c")], check=True)
        return made

    return build


@pytest.fixture(scope="session")
def library(compile_nvml: Callable[..., Path]) -> Path:
    return compile_nvml()


@pytest.fixture(scope="session")
def old_library(compile_nvml: Callable[..., Path]) -> Path:
    """The library of a driver that lacks the newer functions."""
    return compile_nvml("-DOLD_DRIVER")


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
