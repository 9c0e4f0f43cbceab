"""`toolchain cascade`: two stages in one bundle, the second one asked only when the first is unsure."""

import argparse
from pathlib import Path

from toolchain.base.amounts import counted
from toolchain.cli.options import add_options, given
from toolchain.cli.output import emit, log
from toolchain.errors import UsageError
from toolchain.recipe import Recipe


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the stages, and where the threshold comes from."""
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE", help="[SMALL] BIG: the first and the second stage")
    parser.add_argument(
        "--lexical",
        action="store_true",
        help="the first stage is TF-IDF of tokens with logistic regression, fitted to the train rows; give BIG alone",
    )
    add_options(parser, ("output", "data", "calib_data", "split", "limit", "max_drop", "confidence", "seed"))
    add_options(parser, ("precision", "backend", "device", "file"))
    parser.add_argument("--trust", metavar="[DIGEST,]DIGEST", help="refuse bundles with other digests: [SMALL,]BIG")


def run(args: argparse.Namespace) -> None:
    """Make the cascade and print what was measured."""
    from toolchain.cascade import make
    from toolchain.cli.show.cascade import made

    places = [Path(place) for place in args.bundles]
    if len(places) != (1 if args.lexical else 2):
        wanted = "--lexical takes BIG alone" if args.lexical else "give SMALL and BIG, or --lexical and BIG"
        raise UsageError(f"cascade: {counted(len(places), 'bundle')}: {wanted}.")
    if not args.output:
        raise UsageError("--output: missing. Name the folder of the cascade with -o DIR.")
    small, big = None if args.lexical else places[0], places[-1]
    values = Recipe.values({key: value for key, value in given(args).items() if key != "output"}, sets=[], file=None)
    emit(args, make(values, Path(args.output), big=big, small=small, tell=log.info), made)
