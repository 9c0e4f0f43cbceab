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
    """A log handler that looks up `sys.stderr` for each record.

    A progress bar replaces `sys.stderr` while it is drawn. A command shows each warning once, although it may read the
    same rows several times. A service shows all of its warnings, because each is an event of its own.
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
    """A text stream that escapes control characters (`printable`).

    Labels, columns and messages may come from files of other people.
    """

    def __init__(self, stream: Any) -> None:  # Any: sys.stdout may be any object with a method `write`
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, and return its length before control characters are escaped."""
        self.stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def open_standard_files() -> None:
    """Open /dev/null in place of stdin, stdout or stderr if it is closed.

    Otherwise, the next file or socket would get the descriptor of the closed file, and what a library writes to stdout
    or stderr would end up in it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The new descriptor is the lowest free number, which is `number`.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def set_up_logging(verbosity: int) -> None:
    """Log to stderr. The level is DEBUG if `verbosity` is 1 or more, INFO if it is 0, and WARNING if it is negative."""
    level = {-1: logging.WARNING, 0: logging.INFO}.get(max(verbosity, -1), logging.DEBUG)
    log.handlers[:] = [_Stderr()]
    log.setLevel(level)
    log.propagate = False


def emit(args: argparse.Namespace, value: Value, show: Callable[[Value], None]) -> None:
    """Print a record: with --json as one JSON object, else by calling `show`, which prints it for people."""
    with still():
        if args.json:
            print(json.dumps(value, indent=2, ensure_ascii=False))
        else:
            show(value)
