"""`toolchain estimate`: compute a lower bound of the time on a GPU from its data sheet, without the GPU."""

import argparse

from toolchain.cli.options import add_options, add_source, choices
from toolchain.cli.output import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a bundle, the name of the GPU, and the rows whose mean length is used."""
    add_source(parser, "BUNDLE")
    add_options(parser, ("precision", "data", "split", "task", "text_column", "label_column", "trust", "seed"))
    parser.add_argument("--gpu", metavar="NAME", required=True, help="name of the GPU: t4, l4, a100-80, h200, ...")
    parser.add_argument(
        "--idle-power",
        metavar="W",
        type=float,
        help="idle power of the GPU, if you know it; gives a lower bound of the energy",
    )


def run(args: argparse.Namespace) -> None:
    """Compute and print the lower bounds of the time and, with --idle-power, of the energy."""
    from toolchain.cli.show.estimate import estimated
    from toolchain.profile.roofline.estimate import estimate

    values, place = choices(args)
    emit(args, estimate(values, gpu=args.gpu, bundle=place, idle_w=args.idle_power), estimated)
