"""The command line: it parses the arguments, calls one function of the toolchain, and prints the result."""

import argparse
import contextlib
import gc
import sys
import textwrap
from typing import Any

from toolchain import __version__
from toolchain.base.progress import running
from toolchain.cli.commands import COMMANDS
from toolchain.cli.examples import EXAMPLES
from toolchain.cli.output import Plain, log, open_standard_files, set_up_logging
from toolchain.errors import INTERRUPTED, MachineError, ToolchainError, meant, why_not_imported
from toolchain.records.plain import printable

# Flags that every command has. They may be anywhere on the command line.
EVERYWHERE = ("--json", "-v", "-vv", "--verbose", "-q", "--quiet")

# Number of new objects after which Python's garbage collector runs again; Python's default is 700. The libraries and
# the exporter make millions of objects that stay in memory, so with the default the collector takes a tenth of a
# build's CPU time. A service runs for a long time, so it keeps the default.
CYCLE_THRESHOLD = 100_000


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code (see errors.py)."""
    open_standard_files()
    words = sys.argv[1:] if argv is None else argv
    typed = next((word for word in words if not word.startswith("-")), "")
    made = parser(typed)
    if not words:
        made.print_help()
        return 0
    args = _parse(made, typed, words)
    set_up_logging(args.verbose - args.quiet)
    if args.typed != "serve":
        gc.set_threshold(CYCLE_THRESHOLD)
    try:
        with running(args.typed), contextlib.redirect_stdout(Plain(sys.stdout)):
            code: int | None = COMMANDS[args.typed].load_run()(args)
    except ToolchainError as error:
        return _fail(error, error.exit_code, args.verbose)
    except KeyboardInterrupt:
        print("interrupted: existing files are unchanged.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the process that reads stdout, such as `head`, has ended
        sys.stderr.close()
        return 1
    except ImportError as error:
        if (error.name or "").startswith("toolchain"):
            raise
        return _fail(f"{args.typed}: {why_not_imported(error)}", MachineError.exit_code, args.verbose)
    except OSError as error:
        return _fail(_os_message(error), 1, args.verbose)
    return code or 0


def _os_message(error: OSError) -> str:
    from pathlib import Path

    place = error.filename or "file system"
    if isinstance(error, FileExistsError | NotADirectoryError):
        for path in (Path(place), *Path(place).parents):
            if path.is_file():
                return f"{path}: this is a file, and a folder is needed. Choose another path."
    return f"{place}: {error.strerror or error}. Fix that and try again."


EMPTY = "the value is empty. Write a value, or leave the argument out if it is optional."

# Command -> the name of its argument that is a list. Options may come between the elements of this list.
LISTS = {"predict": "texts", "compare": "results", "report": "results", "cascade": "bundles"}


def _parse(made: argparse.ArgumentParser, typed: str, words: list[str]) -> argparse.Namespace:
    """Parse a command line.

    For an unknown command or option, exit with an error that suggests the most similar one.
    """
    if typed and typed not in COMMANDS:
        made.error(f"{typed}: this is not a command.{meant(typed, COMMANDS)} See: toolchain --help")
    args, unknown = made.parse_known_args(_everywhere_flags_first(typed, words))
    if typed in LISTS and not any(word.startswith("-") for word in unknown):
        if typed != "predict" and "" in unknown:  # a text for `predict` may be empty
            made.error(f"argument {LISTS[typed]}: {EMPTY}")
        # argparse returns the elements that follow a later option as unknown words.
        getattr(args, LISTS[typed]).extend(unknown)
        unknown = []
    if unknown:
        known = [flag for flag in _flags(made) if flag.startswith("--")]
        option = next((word for word in unknown if word.startswith("-")), unknown[0])
        hint = meant(option.partition("=")[0], known)
        made.error(f"{option}: {typed} has no such argument.{hint} See: toolchain {typed} --help")
    return args


def _everywhere_flags_first(typed: str, words: list[str]) -> list[str]:
    """Return the words of a command line with the flags in EVERYWHERE moved directly behind the command.

    The command's parser expects them there. Words after `--` are not moved, and neither are words after `power`,
    because they may belong to the command that `power` measures.
    """
    if typed not in words:
        return words
    place = words.index(typed)
    end = words.index("--") if "--" in words[place:] else len(words)
    end = place if typed == "power" else end
    moved = [word for word in words[:end] if word in EVERYWHERE]
    before = [word for word in words[:place] if word not in EVERYWHERE]
    after = [word for word in words[place + 1 : end] if word not in EVERYWHERE]
    return [*before, typed, *moved, *after, *words[max(end, place + 1) :]]


def _flags(made: argparse.ArgumentParser) -> list[str]:
    """Return the flags of a parser and of its sub-parsers, such as those of `ship`."""
    found: list[str] = []
    parsers = [made]
    while parsers:
        for action in parsers.pop()._actions:
            found += action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


def _fail(error: object, code: int, verbose: int) -> int:
    print(printable(f"error: {error}"), file=sys.stderr)
    if verbose:
        log.exception("the traceback:")
    return code


# The word `options` in a usage line. It stands for all options that are not required; the help page lists them below.
OPTIONS = argparse.Action(["options"], "options", nargs=0)


class _Help(argparse.RawDescriptionHelpFormatter):
    """A help page with a short usage line.

    The line has the arguments, the required options, and the word `options` for all others.
    """

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        """Add the short usage line."""
        needed = [one for one in actions if one.required or not one.option_strings]
        optional = [OPTIONS] if len(needed) < len(list(actions)) else []
        super().add_usage(usage, [*optional, *needed], (), prefix)


def _not_empty(value: str) -> str:
    """Return a value of the command line, and refuse an empty one.

    A shell passes an empty value for a variable that is not set. As a path it would mean the current folder.
    """
    if not value:
        raise argparse.ArgumentTypeError(EMPTY)
    return value


class _Parser(argparse.ArgumentParser):
    """An argument parser that refuses empty values, and suggests the most similar choice for an invalid one."""

    def __init__(self, **choices: Any) -> None:  # the arguments of ArgumentParser
        super().__init__(**{"formatter_class": _Help, **choices})
        self.register("type", None, _not_empty)  # the type of arguments that have no `type`

    def add_subparsers(self, **choices: Any) -> Any:  # Any: the class of argparse's action is private
        """Add commands. The words after a command are checked by its own parser."""
        commands = super().add_subparsers(**choices)
        commands.type = str
        return commands

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = meant(str(value), map(str, action.choices or ()))
            raise argparse.ArgumentError(action, f"{error.message}.{hint}" if hint else error.message) from None


def _on_lines(example: str) -> str:
    """Return an example for a help page. A long command line is split into several lines with backslashes."""
    lines = textwrap.wrap(example, 76, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return " \\\n  ".join(lines)


def parser(typed: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands.

    With `typed`, the name of a command, only this command gets its arguments, which is faster. The top-level options
    take no values, so the first word on a command line that is not an option is its command.
    """
    made = _Parser(
        prog="toolchain",
        description="Convert a Hugging Face encoder to a tested and measured inference engine.",
        epilog="Start with: toolchain demo\nThen: toolchain build -m MODEL --precision int8; toolchain eval",
    )
    made.add_argument("--version", action="version", version=f"toolchain {__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", dest="typed", required=True)
    for name, command in COMMANDS.items():
        its = commands.add_parser(name, help=command.text, description=f"{command.text[0].upper()}{command.text[1:]}.")
        if typed in (None, name):
            # Imported here, because it imports the table of options, which `toolchain --help` does not need.
            from toolchain.cli.options import group

            its.epilog = "\n  ".join(["examples:", *map(_on_lines, EXAMPLES[name])])
            command.load_arguments()(its)
            output = group(its, "output")
            output.add_argument("--json", action="store_true", help="print the result as one JSON object")
            output.add_argument("-v", "--verbose", action="count", default=0, help="show debug messages and tracebacks")
            output.add_argument("-q", "--quiet", action="count", default=0, help="show warnings and errors only")
    return made
