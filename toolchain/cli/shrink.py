"""`toolchain shrink`: cut layers and feed-forward width of a checkpoint, and distil the original into the result."""

import argparse
from pathlib import Path

from toolchain.cli.options import add_options, given
from toolchain.cli.output import emit, log
from toolchain.distill.options import Options
from toolchain.errors import UsageError
from toolchain.recipe.groups import GATE, MODEL_AND_TASK

# Options of a recipe that this command has too.
SHARED = (*MODEL_AND_TASK, "split", "limit", "max_length", "device", "seed", "force", *GATE)
TRUST = ("allow_pickle", "trust_remote_code", "ignore_unused")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: what is cut, how long the result is trained, and the checkpoint and its rows."""
    add_options(parser, ("ffn", "layers", "target_speed", "steps", "minutes"), Options)
    parser.add_argument("-o", "--output", metavar="DIR", help="folder of the new checkpoint")
    add_options(parser, (*SHARED, *TRUST))


def run(args: argparse.Namespace) -> None:
    """Shrink the checkpoint and print the record, then raise an error if the accuracy gate failed."""
    from toolchain.cli.show.shrink import shrunk
    from toolchain.distill.rows import recipe_of
    from toolchain.distill.shrink import judge_shrunk, shrink

    options = Options(**given(args, Options))
    if not args.output:
        raise UsageError("--output: the option is missing. Name the folder of the new checkpoint with -o DIR.")
    values = {key: value for key, value in given(args).items() if key in (*SHARED, *TRUST)}
    found = shrink(values, options, Path(args.output), tell=log.info)
    emit(args, found, shrunk)
    judge_shrunk(found, recipe_of(values))
