"""perf_analyzer, Triton's load generator: a binary that only older wheels of tritonclient contain."""

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

BINARY = "tritonclient-2.50.0.data/data/bin/perf_analyzer"


class NoAnalyzerError(Exception):
    """perf_analyzer is not available; the message says why."""


def measured_per_s(run: Callable[..., Any], folder: Path, wire: str, address: str, texts: list[str]) -> float:
    """Return the inferences per second of the model `sentiment` at `address`, for four clients that send `texts`."""
    (folder / "in.json").write_text(json.dumps({"data": [{"TEXT": [text]} for text in texts]}))
    target = ("-m", "sentiment", "-i", wire, "-u", address, "--input-data", folder / "in.json")
    load = ("--concurrency-range", 4, "--measurement-mode", "count_windows", "--measurement-request-count", 50)
    done = run(*target, *load, "-s", 999, "-r", 10, "-f", folder / "out.csv")  # one stable window is not asked for
    assert done.returncode == 0, done.stdout + done.stderr
    header, row, *_ = (folder / "out.csv").read_text().splitlines()
    return float(dict(zip(header.split(","), row.split(","), strict=False))["Inferences/Second"])


def find_analyzer(root: Path, libraries: Path, work: Path) -> Callable[..., Any]:
    """Return a function that runs perf_analyzer with its arguments.

    `make test` downloads the wheel to .venv/perf_analyzer; TOOLCHAIN_PERF_ANALYZER names another one. The binary links
    the CUDA runtime of Triton's wheel, in `libraries`.

    Raises:
        NoAnalyzerError: the wheel is missing, or the binary does not start.
    """
    named = os.environ.get("TOOLCHAIN_PERF_ANALYZER")
    wheels = [Path(named)] if named else sorted((root / ".venv/perf_analyzer").glob("tritonclient-2.50.0-*.whl"))
    if not wheels:
        raise NoAnalyzerError(".venv/perf_analyzer: no wheel of tritonclient 2.50.0 (make it with `make test`)")
    binary = work / "perf_analyzer"
    with zipfile.ZipFile(wheels[0]) as wheel:
        binary.write_bytes(wheel.read(BINARY))
    binary.chmod(0o755)
    for library in libraries.glob("libcudart-*.so.12*"):
        (work / "libcudart.so.12").symlink_to(library)
    seen = os.environ | {"LD_LIBRARY_PATH": str(work)}

    def run(*arguments: object) -> Any:
        command = [binary, *map(str, arguments)]
        return subprocess.run(command, env=seen, cwd=work, capture_output=True, text=True, check=False, timeout=240)

    why = run("--version").stderr
    if "error while loading shared libraries" in why:
        raise NoAnalyzerError(f"perf_analyzer does not start: {why.strip()} (apt: libb64-0d)")
    return run
