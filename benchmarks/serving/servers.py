"""The servers that are compared, each as a context manager that starts it on a bundle and yields its address.

They are `toolchain serve`, Triton and a simple FastAPI application. All run the same bundle on 127.0.0.1.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from toolchain.bundle import open_bundle
from toolchain.runtimes.openvino import import_openvino

ROOT = Path(__file__).parent.parent.parent
NAME = "model"
INFER = f"/v2/models/{NAME}/infer"
READY_S = 120.0
OURS, TRITON, PLAIN = "toolchain serve", "Triton (python backend)", "plain FastAPI"
OPENVINO = f"{OURS} --backend openvino"

sys.path.insert(0, str(ROOT / "tests/triton"))
import server as triton  # noqa: E402  # the tests start a real Triton with it


@contextlib.contextmanager
def ours(bundle: Path, *options: str, grpc: bool = False) -> Iterator[str]:
    """Start `toolchain serve` with these further options, and yield its HTTP address.

    Without `grpc`, it serves HTTP only.
    """
    command = [sys.executable, "-m", "toolchain", "serve", str(bundle), "--name", NAME, "--log", "off"]
    command += [] if grpc else ["--no-grpc"]
    with _process([*command, *options, "--http-port", str(port := triton.free_ports(1)[0])], port) as address:
        yield address


@contextlib.contextmanager
def plain(bundle: Path) -> Iterator[str]:
    """Start the simple application of fastapi_app.py, and yield its HTTP address."""
    about = open_bundle(bundle).manifest
    graph = next(file for file in about["artefacts"] if file.endswith(".cpu.onnx"))
    variables = {
        "BUNDLE": str(bundle),
        "FILE": graph,
        "LABELS": json.dumps(about["model"]["labels"]),
        "MAX_LENGTH": str(about["max_length"]),
    }
    port = triton.free_ports(1)[0]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "fastapi_app:app",
        "--app-dir",
        str(Path(__file__).parent),
        "--port",
        str(port),
        "--log-level",
        "warning",
        "--no-access-log",
    ]
    with _process(command, port, **variables) as address:
        yield address


@contextlib.contextmanager
def real_triton(bundle: Path) -> Iterator[str]:
    """Start Triton on the repository that `ship triton --backend python` makes, and yield its HTTP address.

    Raises:
        triton.NoTritonError: Triton is not installed in .venv/triton.
    """
    environment = triton.find_environment(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        command = [
            sys.executable,
            "-m",
            "toolchain",
            "ship",
            "triton",
            str(bundle),
            "-o",
            str(repository),
            "--backend",
            "python",
            "--name",
            NAME,
        ]
        subprocess.run(command, check=True, capture_output=True)
        (work := Path(folder) / "work").mkdir()
        with triton.serve(repository, work, environment) as server:
            yield f"http://{server.http}"


@contextlib.contextmanager
def on_openvino(bundle: Path) -> Iterator[str]:
    """Start `toolchain serve --backend openvino`, and yield its HTTP address.

    Raises:
        MachineError: OpenVINO is not installed.
    """
    import_openvino()
    with ours(bundle, "--backend", "openvino") as address:
        yield address


SERVERS = {OURS: ours, OPENVINO: on_openvino, TRITON: real_triton, PLAIN: plain}


@contextlib.contextmanager
def _process(command: list[str], port: int, **variables: str) -> Iterator[str]:
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + READY_S
        while True:
            assert process.poll() is None, f"{command}: the server ended before it was ready"
            assert time.monotonic() < end, f"{command}: the server is not ready after {READY_S:g} s"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/v2/health/ready", timeout=5).close()
                break
            time.sleep(0.1)
        yield address
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
