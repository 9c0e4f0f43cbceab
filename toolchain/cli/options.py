"""Command-line options that are made from the fields of a recipe, and functions that read their values."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolchain.errors import UsageError
from toolchain.recipe import Recipe
from toolchain.recipe.groups import MODEL_AND_TASK, TITLES
from toolchain.recipe.options import RecipeValues, flag

# Keys of a recipe that the commands `build` and `accept` have as options.
MODEL = (
    *MODEL_AND_TASK,
    "max_length",
    "output",
    "seed",
    "allow_pickle",
    "trust_remote_code",
    "ignore_unused",
    "force",
    "dry_run",
    "atol",
)
# Options whose value may be empty. An empty text_join joins texts without a separator; an empty keep excludes no GEMM.
MAY_BE_EMPTY = ("text_join", "keep")
LOOK = (*MODEL_AND_TASK, "backend", "device", "file", "trust", "seed", "max_length", "trust_remote_code")

# Metavar of the positional argument of a command -> its help text.
SOURCES = {
    "RECIPE": "a recipe (*.toml)",
    "BUNDLE": "a bundle's folder (default: the one built last)",
    "RECIPE|BUNDLE": "a recipe (*.toml) or a bundle's folder (default: the one built last)",
    "BUNDLE|FILE": "a bundle's folder or an ONNX file (default: the bundle built last)",
    "CHECKPOINT|RECIPE|BUNDLE": "a checkpoint's folder, a recipe (*.toml), or a bundle to build again",
}


def add_source(parser: argparse.ArgumentParser, metavar: str) -> None:
    """Add the positional argument for a recipe or bundle, and the options --config and --set.

    `metavar` is the name of the argument on the help page, a key of SOURCES.
    """
    parser.add_argument("source", nargs="?", metavar=metavar, help=SOURCES[metavar])
    parser.add_argument("--config", metavar="FILE", help="a recipe (*.toml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the recipe; may be repeated"
    )


def add_options(parser: argparse.ArgumentParser, names: tuple[str, ...], table: Any = Recipe) -> None:
    """Add an option for each of the fields `names` of the dataclass `table`.

    The default of each option is None, which means that the option was not given.
    """
    fields = {field.name: field for field in dataclasses.fields(table)}
    for name in names:
        field, meta = fields[name], fields[name].metadata
        flags = [*([meta["short"]] if meta["short"] else []), flag(name)]
        text = meta["help"]
        if field.default is not None and field.default is not False and "default" not in text:
            text += f" (default {str(field.default).removesuffix('.0')})"
        place = _group(parser, name) if table is Recipe else parser
        if field.type is bool:
            place.add_argument(*flags, action="store_true", default=None, help=text)
            continue
        kinds: dict[str, Callable[[str], Any]] = {"int": _integer, "float": float}
        # None selects the parser's default type, which refuses an empty value.
        kind: Any = (
            str if name in MAY_BE_EMPTY else next((kinds[word] for word in kinds if word in str(field.type)), None)
        )
        place.add_argument(
            *flags, default=None, help=text, type=kind, metavar=meta["metavar"], choices=meta["choices"] or None
        )


def _group(parser: argparse.ArgumentParser, name: str) -> argparse._ActionsContainer:
    """Return the group of a recipe's key on the help page, or the parser itself if the key has no group."""
    title = next((title for title, names in TITLES.items() if name in names), None)
    return parser if title is None else group(parser, title)


def group(parser: argparse.ArgumentParser, title: str) -> argparse._ActionsContainer:
    """Return the group with this title on the parser's help page; create it on first use."""
    groups = {group.title: group for group in parser._action_groups}
    return groups.get(title) or parser.add_argument_group(title)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def given(args: argparse.Namespace, table: Any = Recipe) -> RecipeValues:
    """Return the options that were given on the command line: field of the dataclass `table` -> value."""
    known = {field.name for field in dataclasses.fields(table)}
    return {key: value for key, value in vars(args).items() if key in known and value is not None}


def choices(args: argparse.Namespace) -> tuple[RecipeValues, Path | None]:
    """Return the values of the recipe that the command line describes, and the path of the bundle.

    An option overrides --set, which overrides the recipe file. The path is None if the positional argument is missing
    or a recipe.

    Raises:
        InputError: the recipe cannot be read.
        UsageError: a key or a value is not allowed, or two recipes were given.
    """
    place = Path(args.source) if args.source else None
    bundle = place if place and place.suffix != ".toml" else None
    file = Path(args.config) if args.config else place if bundle is None else None
    if args.config and place and bundle is None:
        raise UsageError(f"{args.source}: there are two recipes, this and --config {args.config}. Give one.")
    return Recipe.values(given(args), sets=args.set, file=file), bundle
