"""What a command prints: its result to stdout, what happens meanwhile to stderr."""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

log = logging.getLogger("toolchain")


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # it takes none when it runs
    """Writes to what stderr is now: a bar stands in for it, to keep lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up_logging(loudness: int) -> None:
    """Log to stderr, from debugging (1 and more) over what is done (0) to warnings (-1 and less)."""
    level = {-1: logging.WARNING, 0: logging.INFO}.get(max(loudness, -1), logging.DEBUG)
    log.handlers[:] = [_Stderr()]
    log.setLevel(level)
    log.propagate = False


def emit(args: argparse.Namespace, value: Any, show: Callable[[Any], None]) -> None:
    """Print a value: with --json as one object, else as `show` does for a person."""
    if args.json:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        show(value)
