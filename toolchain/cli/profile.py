"""`toolchain profile`: measure time and energy of each part of the model."""

import argparse
from pathlib import Path

from toolchain.cli.options import LOOK, add_options, add_source, choices
from toolchain.cli.output import emit, log
from toolchain.recipe import Recipe

# Default length of a measurement window, in seconds. Each of five rounds measures the whole call and up to six
# variants of it, which takes about six minutes in all.
WINDOW_S = 10.0


def profile(args: argparse.Namespace) -> None:
    """Print the time of each part of a model, with --energy also its energy.

    With --nsys, print the times in a report of Nsight Systems instead.
    """
    from toolchain.cli.show.profile import from_nsys, profiled
    from toolchain.profile import profile
    from toolchain.profile.nsys import read_nsys

    if args.nsys:
        emit(args, read_nsys(Path(args.nsys)), from_nsys)
        return
    values, place = choices(args)
    trace = Path(args.trace) if args.trace else None
    if not Recipe.make(values).wants_energy:
        emit(args, profile(place, values, trace=trace, progress=log.info), profiled)
        return
    from toolchain.energy.calls import joules_per_call
    from toolchain.energy.protocol import Protocol
    from toolchain.evaluation.target import find_target
    from toolchain.meters.energy import open_meter

    device = find_target(values, place).device
    protocol = Protocol(window_s=values.get("energy_window", WINDOW_S), seed=values.get("seed", 0))
    with open_meter(device) as meter:
        measure = joules_per_call(meter, protocol, device=device)
        emit(args, profile(place, values, joules_per_call=measure, trace=trace, progress=log.info), profiled)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a bundle, and the options of a profile."""
    add_source(parser, "BUNDLE")
    add_options(parser, (*LOOK, "precision", "split", "allow_pickle", "energy", "energy_window"))
    parser.add_argument(
        "--trace", metavar="FILE", help="write the profiled calls as a Chrome trace, which Perfetto opens"
    )
    parser.add_argument("--nsys", metavar="FILE", help="show a report of Nsight Systems (.nsys-rep or .csv) instead")
