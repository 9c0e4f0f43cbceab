"""The commands that make a bundle: export, calibrate and build."""

import argparse

from toolchain.cli.options import MODEL, add_options, add_source, choices
from toolchain.cli.output import emit
from toolchain.recipe.groups import CALIBRATION, ENGINE, GATE


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`: a checkpoint, recipe or bundle, and the options of a checkpoint."""
    add_source(parser, "CHECKPOINT|RECIPE|BUNDLE")
    add_options(parser, (*MODEL, "reuse"))


def calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `calibrate`: those of `export`, and the options of calibration."""
    export_arguments(parser)
    add_options(parser, (*CALIBRATION, "split"))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `build`.

    They are those of `calibrate`, and the options of the precision, the engine and the accuracy gate.
    """
    calibrate_arguments(parser)
    add_options(parser, ("keep", "residual", "views", "precision", "backend", "target", "device", *ENGINE, *GATE))


def export(args: argparse.Namespace) -> None:
    """Build the FP32 graph, and nothing else."""
    run(args, goal=("export",))


def calibrate(args: argparse.Namespace) -> None:
    """Build the FP32 graph, and measure the calibration ranges."""
    run(args, goal=("export", "calibrate"))


def run(args: argparse.Namespace, goal: tuple[str, ...] = ()) -> None:
    """Run the build steps that the precision needs, or those in `goal` (see `run_build`), and print the record.

    Then raise an error if the accuracy gate failed.
    """
    from toolchain.api import judge_build, run_build
    from toolchain.cli.show.build import built

    values, bundle = choices(args)
    done, recipe = run_build(values, bundle=bundle, goal=goal)
    emit(args, done, built)
    judge_build(done, recipe)
