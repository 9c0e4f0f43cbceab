"""Run a real Triton, from the nvidia-pytriton wheel in a virtual environment of its own.

`make test` makes the environment in .venv/triton; TOOLCHAIN_TRITON names another one. It has only Triton's python
backend; standin.py replaces the others.
"""

import contextlib
import ctypes.util
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# The entry point of the image, with which the tests start Triton as well.
SERVE = HERE.parent.parent / "docker/serve_repository.sh"

READY_S = 120.0
STOP_S = 20.0


class NoTritonError(Exception):
    """Triton is not available; the message says why."""


@dataclass(frozen=True)
class Environment:
    """The virtual environment with Triton. `python` is the version of its Python, such as 3.11."""

    folder: Path
    packages: Path
    python: str

    @property
    def libraries(self) -> Path:
        """The libraries that come with the wheel."""
        return self.packages / "nvidia_pytriton.libs"

    @property
    def server(self) -> Path:
        """The folder of the server's binary and its backends."""
        return self.packages / "pytriton/tritonserver"


def find_environment(root: Path) -> Environment:
    """Return the environment of Triton.

    Raises:
        NoTritonError: it is missing, or the system lacks a library that it needs.
    """
    folder = Path(os.environ.get("TOOLCHAIN_TRITON") or root / ".venv/triton")
    found = sorted(folder.glob("lib/python*/site-packages/pytriton/tritonserver/bin/tritonserver"))
    if not found:
        raise NoTritonError(f"{folder}: no Triton (make it with `make test`, or name one in TOOLCHAIN_TRITON)")
    packages = found[0].parents[3]
    version = packages.parent.name.removeprefix("python")
    if ctypes.util.find_library(f"python{version}") is None:
        raise NoTritonError(f"no libpython{version}.so, which Triton's python backend needs (apt: libpython{version})")
    return Environment(folder, packages, version)


@dataclass(frozen=True)
class Server:
    """A running Triton: its addresses and its log."""

    http: str
    grpc: str
    metrics: str
    log: Path
    environment: Environment

    def ask(self, *calls: dict[str, Any]) -> list[dict[str, Any]]:
        """Send requests with tritonclient in the environment's Python; return the result of each (client.py)."""
        python = self.environment.folder / "bin/python"
        done = subprocess.run(
            [python, HERE / "client.py", self.http, self.grpc],
            input=json.dumps(calls),
            text=True,
            capture_output=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        return answers

    def get(self, path: str) -> Any:
        """Return the JSON at a path of the HTTP endpoint."""
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=30) as answer:
            return json.loads(answer.read() or b"null")


@contextlib.contextmanager
def serve(repository: Path, work: Path, environment: Environment, *flags: str) -> Iterator[Server]:
    """Run Triton on a repository until the context ends; all models are ready.

    Raises:
        AssertionError: the server ends before it is ready; the message contains its log.
    """
    backends, caches = _backends(environment, work), environment.server / "caches"
    ports = free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    command = ["sh", str(SERVE), f"--backend-directory={backends}", f"--cache-directory={caches}", *flags]
    for wire, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        command += [f"--{wire}-address=127.0.0.1", f"--{wire}-port={port}"]
    log = work / "triton.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env=variables(environment) | {"MODELS": str(repository)},
            start_new_session=True,
        )
    try:
        _wait(process, addresses[0], log)
        yield Server(*addresses, log, environment)
    finally:
        _stop(process)


def variables(environment: Environment) -> dict[str, str]:
    """Return the environment variables of the server's process, with its libraries and the Python of its models."""
    path = f"{environment.folder / 'bin'}:{environment.server / 'bin'}:{os.environ['PATH']}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return clean | {"LD_LIBRARY_PATH": str(environment.libraries), "PATH": path}


def _backends(environment: Environment, work: Path) -> Path:
    """Return a folder with the python backend, its stub for this Python, and stand-ins for the other backends."""
    folder = work / "backends"
    shutil.copytree(environment.server / "backends/python", folder / "python")
    stub = environment.server / f"python_backend_stubs/{environment.python}/triton_python_backend_stub"
    copied = Path(shutil.copy(stub, folder / "python"))
    copied.chmod(0o755)
    for name in ("tensorrt", "onnxruntime"):
        (folder / name).mkdir()
        shutil.copy(HERE / "standin.py", folder / name / "model.py")
    return folder


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback interface."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait(process: subprocess.Popen[bytes], http: str, log: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{http}/v2/health/ready", timeout=5).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"Triton is not ready:\n{log.read_text()[-6000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and the processes of its models, which outlive a server that failed to start."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
