"""Start of the server of forked processes, and the command line that stands for `python` in its children.

The process that pytest starts in owns the server, and xdist's workers use the same one.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
# Environment variable in which xdist's workers find the socket.
ADDRESS = "TOOLCHAIN_FORK_SERVER"
SKIPPED = 75


class Server:
    """The server, from the start of pytest to its end."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="toolchain-forks-")
        os.environ[ADDRESS] = f"{self.folder.name}/socket"
        command = [sys.executable, "-P", str(HERE / "server.py"), os.environ[ADDRESS]]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == b"listening\n"

    def close(self) -> None:
        del os.environ[ADDRESS]
        self.process.communicate()
        self.folder.cleanup()


def python() -> list[str]:
    """Return the start of a command line that does what `python` does, in a child of the server."""
    return [sys.executable, "-I", "-S", str(HERE / "client.py"), os.environ[ADDRESS]]


def call(function: Callable[..., Any], arguments: dict[str, Any], *path: Path, **environment: str) -> None:
    """Call a function of a test module in a process of its own, with asserts as pytest rewrites them.

    `path` comes first on its import path. What the function raises fails the test here.
    """
    root = HERE.parent.parent
    joined = os.pathsep.join(map(str, [*path, root]))
    command = [*python(), str(HERE / "body.py"), function.__code__.co_filename, function.__qualname__]
    done = subprocess.run(
        command,
        input=pickle.dumps(arguments),
        env=os.environ | environment | {"PYTHONPATH": joined},
        capture_output=True,
    )
    errors = done.stderr.decode(errors="replace")
    if done.returncode == SKIPPED:
        pytest.skip(json.loads(errors.splitlines()[-1]))
    if done.returncode:
        pytest.fail(f"{done.stdout.decode(errors='replace')}{errors}exit code {done.returncode}", pytrace=False)
