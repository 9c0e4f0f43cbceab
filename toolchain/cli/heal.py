"""`toolchain heal`: the weights of a bundle's INT8 graphs, rounded anew to give FP32's logits."""

import argparse

from toolchain.cli.options import add_options, add_source, choices
from toolchain.cli.output import emit, log
from toolchain.recipe.groups import GATE


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the INT8 bundle, the length of a training, its rows and the gate."""
    add_source(parser, "BUNDLE")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of training after the rounding (default 0)")
    parser.add_argument("--minutes", type=float, metavar="M", help="minutes of training instead of steps")
    add_options(parser, ("data", "calib_data", "split", *GATE, "seed", "force", "trust"))
    add_options(parser, ("allow_pickle", "trust_remote_code", "ignore_unused"))


def run(args: argparse.Namespace) -> None:
    """Heal, print the record, then refuse a failed gate."""
    from toolchain.bundle import last_bundle
    from toolchain.cli.show.heal import healed
    from toolchain.distill.heal import heal, judge_healed
    from toolchain.recipe import Recipe

    values, place = choices(args)
    found = heal(values, place or last_bundle(), steps=args.steps, minutes=args.minutes, tell=log.info)
    emit(args, found, healed)
    judge_healed(found, Recipe.make(values))
