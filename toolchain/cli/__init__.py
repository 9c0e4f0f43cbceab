"""The command line: parse, call one function, print. Nothing is decided here."""

import argparse
import sys

from toolchain import __version__
from toolchain.cli.commands import COMMANDS
from toolchain.cli.options import add_options, add_source
from toolchain.cli.output import log, set_up_logging
from toolchain.errors import ToolchainError

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code (see errors.py)."""
    args = parser().parse_args(argv)
    set_up_logging(args.verbose - args.quiet)
    try:
        code: int | None = args.run(args)
    except ToolchainError as error:
        return _fail(error, error.exit_code, args.verbose)
    except KeyboardInterrupt:
        print("interrupted: what was there before is as it was.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        place = error.filename or "file system"
        return _fail(f"{place}: {error.strerror or error}. Mend that and try again.", 1, args.verbose)
    return code or 0


def _fail(error: object, code: int, verbose: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    if verbose:
        log.exception("where it came from")
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="toolchain",
        description="Take a Hugging Face encoder from checkpoint to a checked, measured, quantised engine.",
        epilog="First steps: toolchain demo. Then: toolchain build --precision int8; toolchain eval.",
    )
    parser.add_argument("--version", action="version", version=f"toolchain {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        description = command.text[0].upper() + command.text[1:] + "."
        its = commands.add_parser(name, help=command.text, description=description)
        its.set_defaults(run=command.run)
        if command.positional:
            add_source(its, command.positional)
        add_options(its, command.options)
        its.add_argument("--json", action="store_true", help="print the result as one JSON object")
        its.add_argument("-v", "--verbose", action="count", default=0, help="show more, and tracebacks")
        its.add_argument("-q", "--quiet", action="count", default=0, help="show warnings and errors only")
        if command.arguments:
            command.arguments(its)
    return parser
