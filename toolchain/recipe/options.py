"""Options: their declaration as fields of a data class, their flags, their checks, and their values in TOML."""

import dataclasses
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from toolchain.base.files import open_file
from toolchain.errors import InputError, UsageError, first_line, meant

# Keys of a recipe that were given, with their values. Each key has a type of its own, which `check` enforces.
RecipeValues = dict[str, Any]

# Options that let a checkpoint run code. A person gives them on the command line: neither a recipe nor a bundle, which
# may come from somebody else, can consent for its user.
CONSENT = ("allow_pickle", "trust_remote_code")

# Keys that a recipe's file cannot give: those, and the place of bundles that are trusted with a graph.
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
    """Declare one option: its default, help text, and the values it may take."""
    meta = {"help": text, "short": short, "metavar": metavar, "choices": choices, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=meta)


def flag(name: str) -> str:
    """Return the command line's flag for a key of a recipe: `--max-drop` for `max_drop`."""
    return f"--{name.replace('_', '-')}"


def load_recipe(path: Path) -> RecipeValues:
    """Read a recipe's file.

    Raises:
        InputError: see `load_toml`.
        UsageError: it gives a key of COMMAND_LINE_ONLY.
    """
    values = load_toml(path)
    if given := next((key for key in COMMAND_LINE_ONLY if values.get(key)), None):
        raise UsageError(
            f"{path}: {given} is for the command line alone, because a recipe may come from somebody else. "
            f"Remove it, and give {flag(given)} if you trust what it names."
        )
    return values


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InputError: it is missing, not a regular file, not UTF-8, or not TOML.
    """
    try:
        with open_file(path) as file:
            return tomllib.loads(file.read().decode())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Give the path of a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file: {first_line(error)}. Fix it.") from error


def joined(value: Any) -> Any:
    """Return a list of texts as one text, `A,B`, which an option takes; a recipe may write either."""
    names = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    return ",".join(value) if names else value


def toml_value(text: str) -> Any:
    """Return the value of a text read as TOML, or the text itself if it is not TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def check(field: "dataclasses.Field[Any]", value: Any) -> None:
    """Refuse a value of the wrong type, out of range, or outside the choices.

    Raises:
        UsageError: naming the option and the value.
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
