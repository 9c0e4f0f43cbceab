"""Run the commands of cells, one at a time on this machine, and find the reason why a command failed."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

# The beginning of each command of a cell.
PROGRAM = (sys.executable, "-m", "toolchain")

# Added to the reason of a command that was killed by SIGKILL: the out-of-memory killer sends it, but others may, too.
OUT_OF_MEMORY = " (often the system, because memory ran out)"

# Most characters of a log line that a reason quotes.
LONGEST = 300


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    `code` is its exit code; a negative one is the number of the signal that killed the command. `out` is its stdout.
    The log may begin with the output of earlier commands; the command's own output begins at the byte `start`.
    """

    code: int
    seconds: float
    out: bytes
    log: Path
    start: int = 0

    @property
    def reason(self) -> str | None:
        """The reason why the command failed: the signal, or its error message; None if it succeeded."""
        if self.code == 0:
            return None
        if self.code < 0:
            name = signal.Signals(-self.code).name
            return f"killed by {name}{OUT_OF_MEMORY if name == 'SIGKILL' else ''}"
        written = self.log.read_bytes()[self.start :] if self.log.exists() else b""
        lines = written.decode(errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
        return f"{errors[-1] if errors else last}"[:LONGEST]


def run(command: Sequence[str], file: Path, *, program: Sequence[str] = PROGRAM) -> Ended:
    """Run a command, while no other sweep on this machine runs one; append its stderr to `file`.

    The command inherits the lock of this machine. If this process is killed, the next sweep therefore waits until the
    command has ended, too.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with machine_lock() as lock, file.open("ab") as errors:
        start_s, start = time.monotonic(), os.fstat(errors.fileno()).st_size
        done = subprocess.run(  # noqa: S603  # our own program, without a shell
            [*program, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, pass_fds=(lock,)
        )
        return Ended(done.returncode, time.monotonic() - start_s, done.stdout, file, start)


@contextmanager
def machine_lock() -> Iterator[int]:
    """Hold the lock of this machine, and yield its file descriptor; wait while another process holds the lock.

    With the lock, only one cell at a time is timed or uses the energy meters.
    """
    lock = _open(Path(tempfile.gettempdir()) / "toolchain-sweep.lock")
    try:
        if not _try(lock):
            log.warning("another sweep runs a cell on this machine: waiting until the cell has ended")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)  # a command that still runs has its own copy of the lock


def _open(path: Path) -> int:
    """Open the lock file. Another user may have made it, so it is opened for reading, which is enough to lock it."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileExistsError):
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    return os.open(path, flags)


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
