"""`toolchain estimate`: the least time on a GPU that is not at hand."""

import argparse

from toolchain.cli.options import add_options, add_source, choices
from toolchain.cli.output import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add a bundle, the GPU, and the rows."""
    add_source(parser, "BUNDLE")
    add_options(parser, ("precision", "data", "split", "task", "text_column", "label_column", "trust", "seed"))
    parser.add_argument(
        "--gpu", metavar="NAME", required=True, help="GPU of the data sheet: t4, l4, a100-80, h200, ..."
    )
    parser.add_argument(
        "--idle-power", metavar="W", type=float, help="idle power of that GPU, if known: gives a lower bound on energy"
    )


def run(args: argparse.Namespace) -> None:
    """Compute the bounds and print them."""
    from toolchain.cli.show.estimate import estimated
    from toolchain.profile.roofline.estimate import estimate

    values, place = choices(args)
    emit(args, estimate(values, gpu=args.gpu, bundle=place, idle_w=args.idle_power), estimated)
