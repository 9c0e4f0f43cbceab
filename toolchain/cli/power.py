"""`toolchain power`: a command of the user's is run, so stdout is that command's."""

import argparse
import json
import math
import sys
from pathlib import Path

from toolchain.cli.options import add_options
from toolchain.errors import UsageError


def power(args: argparse.Namespace) -> int:
    """Measure a command, or without one watch the machine; return the command's exit code."""
    from toolchain.cli.show.power import live, recorded
    from toolchain.energy import power as meter
    from toolchain.energy.power_file import writer

    if args.command and args.seconds is not None:
        raise UsageError("--seconds: only without a command, which takes as long as it takes. Leave one of them out.")
    if args.seconds is not None and not 0 < args.seconds < math.inf:
        raise UsageError(f"--seconds {args.seconds:g}: not a number above 0. Give one, or none to watch until Ctrl-C.")
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
        print(json.dumps(record, indent=2, ensure_ascii=False))
    elif not args.quiet:
        recorded(record, file=args.output)
    if needed:
        meter.judge(record)
    return record["exit_code"] or 0


def _command(words: list[str]) -> list[str]:
    return words[1:] if words[:1] == ["--"] else words


def power_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is to be measured, how long to watch, and where to keep it."""
    add_options(parser, ("device", "require_energy"))
    parser.add_argument("-o", "--output", metavar="FILE", help="keep it: .json whole, .csv samples, .svg plot")
    parser.add_argument("--seconds", type=float, metavar="S", help="without a command: how long (default until Ctrl-C)")
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="what to run and measure; with --json what it prints goes to stderr",
    )
