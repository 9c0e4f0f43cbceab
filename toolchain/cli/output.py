"""Output of a command: the result goes to stdout, logs and progress go to stderr."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from toolchain.base.progress import still
from toolchain.records.plain import printable

log = logging.getLogger("toolchain")

Value = TypeVar("Value")


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # StreamHandler is generic for type checkers alone
    """A handler that looks up `sys.stderr` for each record, because a progress bar replaces it while it is drawn.

    A command may read the same rows several times, and each of its warnings is shown once. A service runs for long,
    and its warnings are events.
    """

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING and not record.name.startswith("toolchain.serve"):
            message = record.getMessage()
            if message in self._warned:
                return
            self._warned.add(message)
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class Plain:
    """A text stream that writes `printable` text: labels, columns and messages may come from somebody else."""

    def __init__(self, stream: Any) -> None:  # sys.stdout may be any stream
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, and return its length."""
        self.stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def open_standard_files() -> None:
    """Open /dev/null in the place of each standard file that is closed.

    Otherwise the next socket or file gets its number, and what a library writes to stdout or stderr goes there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def set_up_logging(verbosity: int) -> None:
    """Log to stderr: debugging for 1 and more, progress for 0, warnings for -1 and less."""
    level = {-1: logging.WARNING, 0: logging.INFO}.get(max(verbosity, -1), logging.DEBUG)
    log.handlers[:] = [_Stderr()]
    log.setLevel(level)
    log.propagate = False


def emit(args: argparse.Namespace, value: Value, show: Callable[[Value], None]) -> None:
    """Print a record: with --json as one JSON object, else as `show` prints it for a person."""
    with still():
        if args.json:
            print(json.dumps(value, indent=2, ensure_ascii=False))
        else:
            show(value)
