"""Output of a command: the result goes to stdout, logs and progress go to stderr."""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from typing import TypeVar

from toolchain.progress import still

log = logging.getLogger("toolchain")

Value = TypeVar("Value")


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # StreamHandler is generic for type checkers alone
    """A handler that looks up `sys.stderr` for each record, because a progress bar replaces it while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


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
