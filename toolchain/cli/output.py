"""What a command prints: its result to stdout, what happens meanwhile to stderr."""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

log = logging.getLogger("toolchain")


def set_up_logging(loudness: int) -> None:
    """Log to stderr, from debugging (1 and more) over what is done (0) to warnings (-1 and less)."""
    level = {-1: logging.WARNING, 0: logging.INFO}.get(max(loudness, -1), logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


def emit(args: argparse.Namespace, value: Any, show: Callable[[Any], None]) -> None:
    """Print a value: with --json as one object, else as `show` does for a person."""
    if args.json:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        show(value)
