"""The Python model of a classifier, without Triton."""

import importlib
import os
import sys
from types import ModuleType

import pytest


@pytest.mark.parametrize(
    ("held", "processors"),
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("1000 100000\n", 1), ("max 100000\n", 64), (None, 64)],
)
def test_the_cpu_quota_of_a_container_limits_the_threads(monkeypatch, tmp_path, held, processors):
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    model = importlib.import_module("toolchain.ship.repository.classifier")
    if held:
        (tmp_path / "cpu.max").write_text(held)
    assert model.processors(str(tmp_path / "cpu.max")) == processors
