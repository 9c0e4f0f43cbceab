"""Helpers for the options of a recipe: their declaration as fields of a data class, flags, checks and TOML values."""

import dataclasses
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from toolchain.base.files import open_file
from toolchain.errors import InputError, UsageError, first_line, meant

# The keys of a recipe that were given, with their values. The type of a value depends on its key; `check` enforces it.
RecipeValues = dict[str, Any]

# Options that let a checkpoint run code. Only the user can give them, on the command line. A recipe or a bundle may
# come from somebody else, so it cannot give them for the user.
CONSENT = ("allow_pickle", "trust_remote_code")

# Keys that a recipe's file cannot give: CONSENT, and `reuse`, because the graph of the bundle that it names is trusted.
COMMAND_LINE_ONLY = (*CONSENT, "reuse")


def option(
    default: Any,
    text: str,
    *,
    short: str = "",
    metavar: str | None = None,
    choices: Collection[str] = (),
    least: int | None = None,
    most: int | None = None,
) -> Any:
    """Return a data class field that declares one option of the command line.

    `text` is the help text, `short` a short flag such as -m, and `metavar` names the value in the help. `choices` are
    the allowed values, if there is a fixed set; `least` and `most` are the limits of a number, if it has limits.
    """
    meta = {"help": text, "short": short, "metavar": metavar, "choices": choices, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=meta)


def flag(name: str) -> str:
    """Return the command-line flag of a recipe's key, such as `--max-drop` for `max_drop`."""
    return f"--{name.replace('_', '-')}"


def load_recipe(path: Path) -> RecipeValues:
    """Return the keys and values in a recipe's TOML file. They are not checked yet.

    Raises:
        InputError: see `load_toml`.
        UsageError: the file sets a key of COMMAND_LINE_ONLY.
    """
    values = load_toml(path)
    if given := next((key for key in COMMAND_LINE_ONLY if values.get(key)), None):
        raise UsageError(
            f"{path}: {given} can only be given on the command line, because a recipe may come from somebody else. "
            f"Remove it from the file. Give {flag(given)} on the command line if you trust the checkpoint or bundle."
        )
    return values


def load_toml(path: Path) -> dict[str, Any]:
    """Return the keys and values in a TOML file.

    Raises:
        InputError: the file is missing, not a regular file, not UTF-8, or not TOML.
    """
    try:
        with open_file(path) as file:
            return tomllib.loads(file.read().decode())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Give the path of a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: this is not a valid TOML file: {first_line(error)}. Fix the file.") from error


def joined(value: Any) -> Any:
    """Return a list of strings from a recipe as one string, `A,B`, as an option takes it; other values unchanged."""
    names = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    return ",".join(value) if names else value


def toml_value(text: str) -> Any:
    """Return the value that a text has in TOML, such as 8 for `8`; the text itself if it is not a TOML value."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def check(field: "dataclasses.Field[Any]", value: Any) -> None:
    """Raise an error if the value of an option has the wrong type, is out of range, or is not one of its choices.

    Raises:
        UsageError: the message names the option and the value.
    """
    name, meta = flag(field.name), field.metadata
    optional = field.default is None
    kind: Any = field.type if isinstance(field.type, type) else get_args(field.type)[0]
    if value is None and optional:
        return
    if kind is float and type(value) is int:
        return
    if type(value) is not kind:
        raise UsageError(f"{name} {value}: not {_A[kind]}. Give {_A[kind]}.")
    if meta["choices"] and value not in meta["choices"]:
        hint = meant(value, meta["choices"])
        raise UsageError(f"{name} {value}: unknown.{hint} Choose one of {', '.join(meta['choices'])}.")
    if meta["least"] is not None and value < meta["least"]:
        raise UsageError(f"{name} {value}: too small. Give {meta['least']} or more.")
    if meta["most"] is not None and value > meta["most"]:
        raise UsageError(f"{name} {value}: too large. Give {meta['most']} or less.")


_A = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
