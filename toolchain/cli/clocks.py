"""`toolchain clocks`: find the GPU clock with the least energy per row."""

import argparse

from toolchain.cli.options import add_options, add_source, choices, group
from toolchain.cli.output import emit, log

OPTIONS = (
    "backend",
    "device",
    "file",
    "precision",
    "data",
    "split",
    "cuda_graphs",
    "energy_window",
    "energy_windows",
    "energy_warmup",
    "rate",
    "seed",
    "trust",
    "allow_pickle",
    "trust_remote_code",
    "ignore_unused",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a recipe or bundle, the clocks to compare, and the options of an energy measurement."""
    add_source(parser, "RECIPE|BUNDLE")
    add_options(parser, OPTIONS)
    its = group(parser, "clocks")
    its.add_argument("--apply", action="store_true", help="set clocks and measure; without this option, only list them")
    its.add_argument(
        "--points",
        type=int,
        default=8,
        metavar="N",
        help="number of clocks to compare first, over the whole range (default 8)",
    )
    its.add_argument("--sm-clocks", metavar="MHZ,...", help="clocks to compare first, instead of --points")
    its.add_argument("--power", action="store_true", help="compare power limits too")
    its.add_argument(
        "--max-slowdown",
        type=float,
        metavar="X",
        help="exclude clocks at which a row takes more than X times as long as now, such as 1.1",
    )
    its.add_argument(
        "--locked",
        metavar="MHZ",
        help="the clock lock that the GPU has now, such as 300,900; NVML cannot read it. It is restored at the end",
    )


def run(args: argparse.Namespace) -> None:
    """Compare clocks, or only list what would be compared, and print the record."""
    from toolchain.cli.show.clocks import clocked
    from toolchain.energy.clocks import Asked, find_clock

    changes, place = choices(args)
    asked = Asked(args.points, args.sm_clocks, args.power, args.max_slowdown, args.locked, args.apply)
    emit(args, find_clock(place, changes, asked, log=log.info), clocked)
