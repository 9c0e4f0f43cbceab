"""The Python model of a classifier, without Triton."""

import importlib
import os
import sys
from types import ModuleType

import pytest

from toolchain.runtimes.environment import saturates


@pytest.fixture
def model(monkeypatch):
    """Return the module, with a stand-in for Triton's."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    return importlib.import_module("toolchain.ship.repository.classifier")


@pytest.mark.parametrize(
    ("held", "processors"),
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("1000 100000\n", 1), ("max 100000\n", 64), (None, 64)],
)
def test_the_cpu_quota_of_a_container_limits_the_threads(model, monkeypatch, tmp_path, held, processors):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    if held:
        (tmp_path / "cpu.max").write_text(held)
    assert model.processors(str(tmp_path / "cpu.max")) == processors


@pytest.mark.parametrize("flags", ["fma avx2", "avx2 avx512_vnni", "avx2 avx_vnni", "avx2 amx_int8", "asimd", None])
def test_it_saturates_where_the_runtime_says_so(model, tmp_path, flags):
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nflags\t\t: other\n")
    expected = saturates(frozenset((flags or "").split()))
    assert model.saturates(str(tmp_path / "cpuinfo")) is expected is (flags == "fma avx2")
