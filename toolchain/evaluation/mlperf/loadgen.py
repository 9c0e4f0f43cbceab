"""Run one test of LoadGen: it issues queries from a process of its own, and the calling thread processes them."""

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

# LoadGen's names of its two logs: one to read, and one of JSON lines.
SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"

# Rows, int64 [n] -> the positions in [n] of each batch after it was processed, until each position has come once.
Process = Callable[[Indices], Iterator[Indices]]


@dataclass(frozen=True)
class LoadgenRun:
    """One finished test.

    `logs`: name -> content of LoadGen's logs.
    `samples`: number of samples that were processed.
    `batches`: number of batches in which they were processed.
    """

    logs: dict[str, bytes]
    samples: int
    batches: int


def one_by_one(infer: Infer, encode: Encode, texts: list[Text]) -> Process:
    """Return a function that processes each row alone, from text to logits."""
    first = np.array([0])

    def process(rows: Indices) -> Iterator[Indices]:
        for position, row in enumerate(rows):
            infer(encode([texts[row]]).batch(first))
            yield np.array([position])

    return process


def in_batches(infer: Infer, encode: Encode, texts: list[Text], *, max_slots: int) -> Process:
    """Return a function that processes rows in length-sorted batches of at most `max_slots` padded positions.

    This call tokenises all texts. MLPerf's rules allow it outside the measured time, while samples are loaded.
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
        MachineError: it is not.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise MachineError(
            "--scenario: MLPerf's LoadGen is not installed. Install it with: pip install 'encoder-toolchain[mlperf]'."
        )


def run_loadgen(scenario: str, settings: dict[str, float], process: Process, *, rows: int) -> LoadgenRun:
    """Run a test over a sample library of `rows` rows and process its queries in the calling thread.

    The calling thread must be the one that opened the runtime, because some runtimes work in no other. `scenario` and
    `settings` have LoadGen's names. An exception of `process`, or Ctrl-C, ends LoadGen's process and propagates.

    Raises:
        MachineError: LoadGen is not installed, or ends without a result.
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
                    f"LoadGen: ended with {child.returncode}: {last or 'without a message'}. "
                    "Reinstall it: pip install --force-reinstall mlcommons-loadgen."
                )
        return LoadgenRun({name: (folder / name).read_bytes() for name in (SUMMARY, DETAIL)}, sum(sizes), len(sizes))


@contextmanager
def _started(request: str, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Connection]]:
    """Yield LoadGen's process, which works in `folder`, and the connection to it; end the process with the block."""
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
        theirs.close()  # so that the connection ends when the process does
        try:
            yield child, ours
        finally:
            child.kill()


def _processed(connection: Connection, process: Process) -> Iterator[int]:
    """Process queries until LoadGen's process ends; yield the size of each batch after its completion was sent."""
    arrived = select.poll()  # Connection.poll makes such an object at each call, within the measured time
    arrived.register(connection, select.POLLIN)
    while message := _received(connection, arrived):
        samples = np.frombuffer(message, np.uint64).reshape(-1, 2)  # LoadGen's id of each sample, and its row
        for positions in process(samples[:, 1].astype(np.int64)):
            try:
                connection.send_bytes(array("Q", samples[positions, 0].tobytes()))
            except ConnectionError:
                return  # the process has ended, and its exit code tells why
            yield len(positions)


def _received(connection: Connection, arrived: "select.poll") -> bytes:
    """Wait for a message; return it joined with all that have arrived, or nothing when the connection has ended."""
    messages: list[bytes] = []
    with suppress(EOFError, ConnectionError):
        while not messages or arrived.poll(0):
            messages.append(connection.recv_bytes())
    return b"".join(messages)
