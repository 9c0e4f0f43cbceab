"""`toolchain accept`: run every check on a machine with a GPU and TensorRT."""

import argparse
from pathlib import Path

from toolchain.cli.options import MODEL, add_options, add_source, choices
from toolchain.cli.output import emit, log
from toolchain.errors import UsageError
from toolchain.recipe import Recipe
from toolchain.recipe.groups import CALIBRATION, GATE


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a recipe, and the options for building bundles."""
    add_source(parser, "RECIPE")
    engine = ("device", "batch_size", "seq_len", "buckets", "limit")
    energy = ("energy_window", "energy_windows", "energy_warmup")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="folder of accept.json and accept.md (default eval/results/accept)"
    )
    model = (name for name in MODEL if name != "output")
    add_options(parser, (*model, *CALIBRATION, "split", *engine, *GATE, *energy))


def run(args: argparse.Namespace) -> None:
    """Run the checks and print them, then raise an error if one failed."""
    from toolchain import accept
    from toolchain.cli.show.accept import accepted

    values, place = choices(args)
    if place:
        raise UsageError(
            f"{place}: accept takes no bundle, because it builds its own. Give a recipe (*.toml) or -m MODEL."
        )
    recipe = Recipe.make(values)
    folder = Path(recipe.output) if recipe.output else accept.FOLDER
    found = accept.accept(recipe, folder=folder, tell=log.info)
    emit(args, found, accepted)
    accept.judge(found)
