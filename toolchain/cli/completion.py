"""`toolchain completion`: print the script with which a shell completes commands, options and their values."""

import argparse
from collections.abc import Iterator

from toolchain.base.progress import still
from toolchain.errors import UsageError

# The shells that shtab writes scripts for.
SHELLS = ("bash", "zsh", "fish", "tcsh")

# Metavars of arguments that are paths, for which the shell completes file names.
PATHS = {"FILE", "DIR", "PATH", "PLACE", "NAME_OR_TOML", "ID_OR_DIR"}
PATHS |= {"RECIPE", "BUNDLE", "RESULT", "RECIPE|BUNDLE", "BUNDLE|FILE", "RESULT|BUNDLE", "CHECKPOINT|RECIPE|BUNDLE"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument: the shell."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that the script is for")


def run(args: argparse.Namespace) -> None:
    """Print the script.

    Raises:
        UsageError: --json is given.
    """
    import shtab

    from toolchain.cli import parser

    if args.json:
        raise UsageError("--json: the script cannot be printed as JSON. Leave the option out.")
    made = parser()
    for action in _actions(made):
        if action.metavar in PATHS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # the attribute that shtab reads
    with still():
        print(shtab.complete(made, shell=args.shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its sub-parsers."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for its in action.choices.values():
                yield from _actions(its)
