"""The options of the commands: what is added to a parser here is read back here."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolchain.errors import UsageError
from toolchain.recipe import ENERGY, MLPERF, Recipe

MODEL = (
    "model",
    "task",
    "data",
    "text_column",
    "label_column",
    "max_length",
    "output",
    "seed",
    "allow_pickle",
    "trust_remote_code",
    "force",
    "dry_run",
    "atol",
)
CALIBRATION = ("calib_samples", "calib_method", "smooth", "calib_data", "calibration", "split")
LOOK = (
    "model",
    "data",
    "task",
    "text_column",
    "label_column",
    "backend",
    "device",
    "file",
    "trust",
    "seed",
    "max_length",
    "trust_remote_code",
)
GATE = ("max_drop", "confidence", "strict")
EVALUATION = (
    "model",
    "task",
    "data",
    "split",
    "text_column",
    "label_column",
    "max_length",
    "precision",
    "backend",
    "url",
    "token_file",
    "device",
    "file",
    "attention",
    "cuda_graphs",
    "compile",
    "limit",
    "trust",
    "seed",
    "allow_pickle",
    "trust_remote_code",
    *ENERGY,
    *MLPERF,
)


def add_source(parser: argparse.ArgumentParser, shown: str) -> None:
    """Add the recipe or bundle that a command may be given, called `shown`, and what goes with a recipe."""
    parser.add_argument("source", nargs="?", metavar=shown, help="a recipe (*.toml) or a bundle's folder")
    parser.add_argument("--config", metavar="FILE", help="a recipe; the same as RECIPE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of it")


def add_options(parser: argparse.ArgumentParser, names: tuple[str, ...], table: Any = Recipe) -> None:
    """Add options from a table, that of the recipe or another; all default to None, which means: not given."""
    fields = {field.name: field for field in dataclasses.fields(table)}
    for name in names:
        field, meta = fields[name], fields[name].metadata
        flags = [*([meta["short"]] if meta["short"] else []), f"--{name.replace('_', '-')}"]
        shown = meta["help"]
        if field.default not in (None, False) and "default" not in shown:
            shown += f" (default {field.default})"
        if field.type is bool:
            parser.add_argument(*flags, action="store_true", default=None, help=shown)
            continue
        kinds: dict[str, Callable[[str], Any]] = {"int": _whole, "float": float}
        kind = next((kinds[name] for name in kinds if name in str(field.type)), str)
        parser.add_argument(
            *flags, default=None, help=shown, type=kind, metavar=meta["metavar"], choices=meta["choices"] or None
        )


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def given(args: argparse.Namespace, table: Any = Recipe) -> dict[str, Any]:
    """Return the options of a table that stand on the command line."""
    known = {field.name for field in dataclasses.fields(table)}
    return {key: value for key, value in vars(args).items() if key in known and value is not None}


def choices(args: argparse.Namespace) -> tuple[dict[str, Any], Path | None]:
    """Return recipe keys by precedence (flag, --set, file), and the bundle if the positional is one."""
    place = Path(args.source) if args.source else None
    bundle = place if place and place.suffix != ".toml" else None
    file = Path(args.config) if args.config else place if bundle is None else None
    if args.config and place and bundle is None:
        raise UsageError(f"{args.source}: a recipe twice. Give it once, or with --config.")
    return Recipe.values(given(args), sets=args.set, file=file), bundle
