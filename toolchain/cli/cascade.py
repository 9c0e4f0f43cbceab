"""`toolchain cascade`: make a bundle of two models. The second runs only rows that the first is unsure about."""

import argparse
from pathlib import Path

from toolchain.base.amounts import counted
from toolchain.cli.options import add_options, given
from toolchain.cli.output import emit, log
from toolchain.errors import UsageError
from toolchain.recipe import Recipe


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the two stages, and how the threshold between them is chosen."""
    parser.add_argument(
        "bundles",
        nargs="+",
        metavar="BUNDLE",
        help="SMALL BIG: the bundles of the first and the second stage; with --lexical, only BIG",
    )
    parser.add_argument(
        "--lexical",
        action="store_true",
        help="fit the first stage to the train rows: logistic regression on the TF-IDF of tokens",
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="folder of the cascade, which is a bundle")
    add_options(parser, ("data", "calib_data", "split", "limit", "max_drop", "confidence", "seed"))
    add_options(parser, ("precision", "backend", "device", "file"))
    parser.add_argument(
        "--trust",
        metavar="[DIGEST,]DIGEST",
        help="digests that the bundles must have: of SMALL and BIG, or with --lexical of BIG",
    )


def run(args: argparse.Namespace) -> None:
    """Make the cascade, and print its thresholds, accuracy and time."""
    from toolchain.cascade import make
    from toolchain.cli.show.cascade import made

    places = [Path(place) for place in args.bundles]
    if len(places) != (1 if args.lexical else 2):
        wanted = "With --lexical, give BIG only" if args.lexical else "Give SMALL and BIG, or --lexical and BIG"
        raise UsageError(f"cascade: {counted(len(places), 'bundle')} given. {wanted}.")
    if not args.output:
        raise UsageError("--output: the option is missing. Name the folder of the cascade with -o DIR.")
    small, big = None if args.lexical else places[0], places[-1]
    values = Recipe.values({key: value for key, value in given(args).items() if key != "output"}, sets=[], file=None)
    emit(args, make(values, Path(args.output), big=big, small=small, tell=log.info), made)
