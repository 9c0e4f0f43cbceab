"""Run one test of LoadGen: LoadGen issues queries from another process, and the calling thread processes them."""

import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

import toolchain
from toolchain.base.tensors import Infer
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Encode, batches
from toolchain.data.rows import Text
from toolchain.errors import MachineError

# LoadGen's names of its two logs: a summary for people, and a log of JSON lines.
SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"

# Takes the rows to process, int64 [n]. After each batch, yields the indices into this array that were processed. Each
# index is yielded once.
Process = Callable[[Indices], Iterator[Indices]]


@dataclass(frozen=True)
class LoadgenRun:
    """A finished test: LoadGen's logs (name -> content), and how many samples were processed in how many batches."""

    logs: dict[str, bytes]
    samples: int
    batches: int


def one_by_one(infer: Infer, encode: Encode, texts: list[Text]) -> Process:
    """Return a function that processes rows one at a time, each from text to logits."""
    first = np.array([0])

    def process(rows: Indices) -> Iterator[Indices]:
        for position, row in enumerate(rows):
            infer(encode([texts[row]]).batch(first))
            yield np.array([position])

    return process


def in_batches(infer: Infer, encode: Encode, texts: list[Text], *, max_slots: int) -> Process:
    """Return a function that processes rows in length-sorted batches.

    A batch has at most `max_slots` positions, padding included.

    All texts are tokenized in this call, before the test. MLPerf's rules leave the loading of samples untimed.
    """
    tokens = encode(texts)

    def process(rows: Indices) -> Iterator[Indices]:
        for positions in batches(tokens, max_slots=max_slots, rows=rows):
            infer(tokens.batch(rows[positions]))
            yield positions

    return process


def require_loadgen() -> None:
    """Check that LoadGen is installed.

    Raises:
        MachineError: it is not installed.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise MachineError(
            "--scenario: MLPerf's LoadGen is not installed. Install it with: pip install 'encoder-toolchain[mlperf]'."
        )


def run_loadgen(scenario: str, settings: dict[str, float], process: Process, *, rows: int) -> LoadgenRun:
    """Run a test over a sample library of `rows` rows, and process its queries in the calling thread.

    The calling thread must be the one that opened the runtime, because some runtimes work in no other thread.
    `scenario` and the keys of `settings` are LoadGen's names. If `process` raises an exception or Ctrl-C is pressed,
    LoadGen's process is killed and the exception propagates.

    Raises:
        MachineError: LoadGen is not installed, or its process fails.
    """
    require_loadgen()
    with tempfile.TemporaryDirectory(prefix="mlperf-") as place:
        folder = Path(place)
        request = json.dumps({"scenario": scenario, "rows": rows, "settings": settings})
        with _started(request, folder) as (child, connection):
            sizes = list(_processed(connection, process))
            if child.wait():
                last = (folder / "output").read_text(errors="replace").strip().rpartition("\n")[2]
                raise MachineError(
                    f"LoadGen: its process ended with code {child.returncode} ({last or 'without a message'}). "
                    "Reinstall it: pip install --force-reinstall mlcommons-loadgen."
                )
        return LoadgenRun({name: (folder / name).read_bytes() for name in (SUMMARY, DETAIL)}, sum(sizes), len(sizes))


@contextmanager
def _started(request: str, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Connection]]:
    """Start LoadGen's process in `folder`, and yield it with a connection to it. It is killed when the block ends."""
    paths = [str(Path(toolchain.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    ours, theirs = Pipe()
    command = [sys.executable, "-m", "toolchain.evaluation.mlperf.generator", str(theirs.fileno()), request]
    with (
        ours,
        (folder / "output").open("wb") as output,
        subprocess.Popen(  # noqa: S603  # a module of this package
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[theirs.fileno()],
        ) as child,
    ):
        theirs.close()  # so that the connection closes when the process ends
        try:
            yield child, ours
        finally:
            child.kill()


def _processed(connection: Connection, process: Process) -> Iterator[int]:
    """Process queries until LoadGen's process ends; yield the size of each batch once it is reported as complete."""
    arrived = select.poll()  # Connection.poll makes such an object at each call, within the measured time
    arrived.register(connection, select.POLLIN)
    while message := _received(connection, arrived):
        samples = np.frombuffer(message, np.uint64).reshape(-1, 2)  # LoadGen's id of each sample, and its row
        for positions in process(samples[:, 1].astype(np.int64)):
            try:
                connection.send_bytes(array("Q", samples[positions, 0].tobytes()))
            except ConnectionError:
                return  # the process has ended; its exit code is checked later
            yield len(positions)


def _received(connection: Connection, arrived: "select.poll") -> bytes:
    """Wait for a message, and return it joined with all others that have arrived; empty if the connection is closed."""
    messages: list[bytes] = []
    with suppress(EOFError, ConnectionError):
        while not messages or arrived.poll(0):
            messages.append(connection.recv_bytes())
    return b"".join(messages)
