"""`toolchain power`: measure the energy of any command, or of the machine.

Stdout belongs to the measured command, so the table of results goes to stderr.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from toolchain.base.progress import still
from toolchain.cli.options import add_options, group
from toolchain.errors import UsageError


def power(args: argparse.Namespace) -> int:
    """Measure a command, or the machine if no command is given. Return the exit code of the command, else 0."""
    from toolchain.cli.show.power import live, recorded
    from toolchain.energy import power as meter
    from toolchain.report.power_file import writer

    if args.command and args.seconds is not None:
        raise UsageError(
            "--seconds: this option is for measuring without a command. Leave out the option or the command."
        )
    if args.seconds is not None and not 0 < args.seconds < math.inf:
        raise UsageError(
            f"--seconds {args.seconds:g}: the number is not above 0. Give a larger one, or leave the option out."
        )
    write = writer(Path(args.output)) if args.output else None
    device, needed, command = args.device or "auto", bool(args.require_energy), _command(args.command)
    if command:
        stdout = sys.stderr.fileno() if args.json else None
        record = meter.run(command, device=device, require_energy=needed, stdout=stdout)
    else:
        draw = (lambda seconds, power_w: None) if args.quiet else live()
        record = meter.watch(draw, seconds=args.seconds, device=device)
    if write:
        write(record)
    if args.json:
        with still():
            print(json.dumps(record, indent=2, ensure_ascii=False))
    elif not args.quiet:
        recorded(record, file=args.output)
    if needed:
        meter.judge(record)
    return record["exit_code"] or 0


def _command(given: list[str]) -> list[str]:
    return given[1:] if given[:1] == ["--"] else given


def power_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: output file, duration, and command."""
    add_options(parser, ("device", "require_energy"))
    group(parser, "output").add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="file for the result: .json for the whole record, .csv for samples, .svg for a plot (default: none)",
    )
    group(parser, "energy").add_argument(
        "--seconds", type=float, metavar="S", help="seconds to measure without a command (default: until Ctrl-C)"
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        type=str,  # an argument of the measured command may be empty
        metavar="-- COMMAND",
        help="command to run and measure; with --json its output goes to stderr",
    )
