"""How a test runs a snippet that sees the stand-ins for TensorRT and PyCUDA."""

import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.forked import start

HERE = Path(__file__).parent


def run_double(code, **chosen):
    """Run a snippet, after prelude.py, in a process of its own: no other test sees the double."""
    names = {f"TRT_DOUBLE_{name.upper()}": value for name, value in chosen.items()}
    path = os.pathsep.join([str(HERE / "site"), str(HERE)])
    found = subprocess.run(
        [*start.python(), "-c", "from prelude import *\n" + textwrap.dedent(code)],
        env=os.environ | names | {"PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr.decode()


@pytest.fixture
def run():
    """Return the function that runs a snippet; the environment TRT_DOUBLE_* is its keywords."""
    return run_double
