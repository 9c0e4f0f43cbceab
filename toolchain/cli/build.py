"""The commands that make a bundle: export, calibrate and build."""

import argparse

from toolchain.cli.options import choices
from toolchain.cli.output import emit


def export(args: argparse.Namespace) -> None:
    build(args, ("export",))


def calibrate(args: argparse.Namespace) -> None:
    build(args, ("export", "calibrate"))


def build(args: argparse.Namespace, goal: tuple[str, ...] = ()) -> None:
    """Build by precision or, for `export` and `calibrate`, up to the steps of the goal."""
    from toolchain.api import judge_build, run_build
    from toolchain.cli.show.build import built

    values, bundle = choices(args)
    done, recipe = run_build(values, bundle=bundle, goal=goal)
    emit(args, done, built)
    judge_build(done, recipe)
