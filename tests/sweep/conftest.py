"""A sweep of cells that a cheap stand-in runs in the place of `toolchain`."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.conftest import RESULT

STANDIN = (sys.executable, "-S", str(Path(__file__).parent / "standin.py"))
GRID = """
model = "demo"
task = "demo"
precision = ["fp32", "int8"]
backend = ["ort", "openvino"]
limit = [10, 20]
objectives = ["latency"]
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return what writes the file of a sweep; the current folder is empty, and the stand-in is set up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a lock of its own: tests beside this one have theirs
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("STANDIN_RESULT", json.dumps(RESULT))

    def write(text: str = GRID, name: str = "study") -> Path:
        file = tmp_path / f"{name}.toml"
        file.write_text(text)
        return file

    return write
