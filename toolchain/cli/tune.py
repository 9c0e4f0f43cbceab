"""`toolchain tune`: find which GEMMs to exclude from INT8."""

import argparse

from toolchain.cli.options import add_options, add_source, choices
from toolchain.cli.output import emit, log
from toolchain.recipe.groups import GATE


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tune`: the INT8 bundle and the limits of the search."""
    add_source(parser, "RECIPE|BUNDLE")
    add_options(parser, ("data", *GATE, "budget", "seed", "trust"))


def run(args: argparse.Namespace) -> None:
    """Search for the GEMMs to exclude, write a recipe that excludes them, and print the result."""
    from toolchain.cli.show.tune import tuned
    from toolchain.diagnose.tune import tune

    values, place = choices(args)
    emit(args, tune(values, bundle=place, tell=log.info), tuned)
