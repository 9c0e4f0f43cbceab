"""`toolchain demo`: build, evaluate and report the built-in model."""

import argparse
from pathlib import Path
from typing import Any

from toolchain.cli.output import emit, log


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option for the folder of the bundle."""
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="folder of the bundle (default engines/build/demo-demo-int8)"
    )


def run(args: argparse.Namespace) -> None:
    """Run the demo, and print its results and files."""
    from toolchain.cli.show import results
    from toolchain.workflow import demo

    record: Any = demo(output=Path(args.output) if args.output else None, tell=log.info)
    emit(args, record, results.demo)
