"""`toolchain heal`: round the weights of a bundle's INT8 graphs again, to bring their logits closer to FP32's."""

import argparse

from toolchain.cli.options import add_options, add_source, choices
from toolchain.cli.output import emit, log
from toolchain.recipe.groups import GATE


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the INT8 bundle, how long to train, the rows, and the accuracy gate."""
    add_source(parser, "BUNDLE")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="number of training steps after the rounding (default 0)"
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="minutes of training, instead of --steps")
    add_options(parser, ("data", "calib_data", "split", *GATE, "seed", "force", "trust"))
    add_options(parser, ("allow_pickle", "trust_remote_code", "ignore_unused"))


def run(args: argparse.Namespace) -> None:
    """Round the weights again and print the record, then raise an error if the accuracy gate failed."""
    from toolchain.bundle import last_bundle
    from toolchain.cli.show.heal import healed
    from toolchain.distill.heal import heal, judge_healed
    from toolchain.recipe import Recipe

    values, place = choices(args)
    found = heal(values, place or last_bundle(), steps=args.steps, minutes=args.minutes, tell=log.info)
    emit(args, found, healed)
    judge_healed(found, Recipe.make(values))
