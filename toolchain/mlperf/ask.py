"""One test: LoadGen asks from a process of its own, the calling thread answers until it has asked enough."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import toolchain
from toolchain.errors import MachineError
from toolchain.mlperf.answer import Answer
from toolchain.mlperf.wire import Inbox, send

SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"
"""What LoadGen calls its logs: for a person, and for a program."""


@dataclass(frozen=True)
class Asked:
    """LoadGen's logs by their names, how many samples were answered, and in how many batches."""

    logs: dict[str, bytes]
    samples: int
    batches: int


def require_loadgen() -> None:
    """Refuse a scenario that cannot be run here.

    Raises:
        MachineError: LoadGen is not installed.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise MachineError(
            "--scenario: MLPerf's LoadGen is not installed. Install it with: pip install 'encoder-toolchain[mlperf]'."
        )


def ask(scenario: str, settings: dict[str, float], answer: Answer, *, rows: int) -> Asked:
    """Let LoadGen run a test over a library of `rows`, and answer it in the calling thread.

    That is the one that opened the runtime, as some answer in no other. `scenario` and `settings` are as LoadGen
    names them. An error of `answer`, or Ctrl-C, ends LoadGen's process and goes on as it is.

    Raises:
        MachineError: LoadGen is not installed, or ends without a result.
    """
    require_loadgen()
    with tempfile.TemporaryDirectory(prefix="mlperf-") as place:
        folder = Path(place)
        with _loadgen({"scenario": scenario, "rows": rows, "settings": settings}, folder) as process:
            sizes = list(_answered(process, answer))
            if process.wait():
                said = (folder / "stderr").read_text(errors="replace").strip().rpartition("\n")[2]
                raise MachineError(
                    f"LoadGen: ended with {process.returncode}: {said or 'it says nothing'}. "
                    "Install it anew: pip install --force-reinstall mlcommons-loadgen."
                )
        return Asked({name: (folder / name).read_bytes() for name in (SUMMARY, DETAIL)}, sum(sizes), len(sizes))


def _answered(process: "subprocess.Popen[bytes]", answer: Answer) -> Iterator[int]:
    """Answer until LoadGen's process ends; yield the size of each batch that it was told of."""
    assert process.stdin
    assert process.stdout
    inbox = Inbox(process.stdout.fileno())
    while arrived := inbox.take():
        pairs = np.frombuffer(arrived, np.uint64).reshape(-1, 2)  # what LoadGen calls a sample, and its row
        for positions in answer(pairs[:, 1].astype(np.int64)):
            try:
                send(process.stdin.fileno(), array("Q", pairs[positions, 0].tobytes()))
            except BrokenPipeError:
                return  # it has ended, and its exit code says more
            yield len(positions)


@contextmanager
def _loadgen(asked: dict[str, Any], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield LoadGen's process, working in `folder`; it does not outlive the block."""
    paths = [str(Path(toolchain.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "toolchain.mlperf.generator", json.dumps(asked)]
    pipe = subprocess.PIPE
    with (
        (folder / "stderr").open("wb") as errors,
        subprocess.Popen(  # noqa: S603  # our own module
            command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=errors, bufsize=0
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
