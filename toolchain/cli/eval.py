"""`toolchain eval`: evaluate one backend on one task."""

import argparse

from toolchain.cli.options import add_options, add_source, choices
from toolchain.cli.output import emit, log
from toolchain.recipe.groups import ENERGY, MLPERF, MODEL_AND_TASK, RUNTIME


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a recipe or a bundle, and the options of an evaluation."""
    add_source(parser, "RECIPE|BUNDLE")
    add_options(
        parser,
        (
            *MODEL_AND_TASK,
            "split",
            "max_length",
            *RUNTIME,
            "halves",
            "limit",
            "trust",
            "seed",
            "allow_pickle",
            "trust_remote_code",
            "ignore_unused",
            *ENERGY,
            *MLPERF,
        ),
    )


def run(args: argparse.Namespace) -> None:
    """Evaluate, save the result and print it."""
    from toolchain.cli.show.perplexity import perplexity
    from toolchain.cli.show.results import result
    from toolchain.generate.opened import find_lm
    from toolchain.workflow import evaluate

    values, bundle = choices(args)
    if found := find_lm(bundle, values):
        from toolchain.generate.perplexity import evaluate as evaluate_lm

        emit(args, evaluate_lm(values, found, tell=log.info), perplexity)
        return
    emit(args, evaluate(values, bundle=bundle, tell=log.info), result)
