"""The commands that make a bundle: export, calibrate and build."""

import argparse
from pathlib import Path
from typing import Any

from toolchain.cli.options import choices
from toolchain.cli.output import emit, log
from toolchain.errors import MachineError
from toolchain.recipe import ENGINE, Recipe


def export(args: argparse.Namespace) -> None:
    build(args, ("export",))


def calibrate(args: argparse.Namespace) -> None:
    build(args, ("export", "calibrate"))


def build(args: argparse.Namespace, goal: tuple[str, ...] = ()) -> None:
    """Build by precision or, for `export` and `calibrate`, the steps that are the goal."""
    from toolchain.bundle import build as bundles
    from toolchain.bundle import open_bundle
    from toolchain.cli.show.build import built
    from toolchain.diagnose.gate import gate, judge
    from toolchain.evaluation.target import recorded

    values, place = choices(args)
    steps: tuple[str, ...] | None = None
    if place:
        bundle = open_bundle(place, check_files=not values.get("force"))
        recipe = recorded(bundle, values)
        if "precision" not in values:
            steps = (*bundle.manifest["steps"], *goal)
    else:
        recipe = Recipe.make(values | ({"precision": "fp32"} if goal else {}))
        steps = goal or None
    if place and _only_engine(values):
        done = bundles.build_engine(bundle, recipe, log=log.info)
    else:
        done = bundles.build(recipe, steps=steps, engine=not goal, log=log.info)
    gated = recipe.max_drop is not None and not recipe.dry_run
    if gated:
        engines = [done["engine"]["file"]] if "engine" in done else []
        done["gate"] = gate(Path(done["bundle"]), recipe, engines=engines, tell=log.info)
    emit(args, done, built)
    judge(done["gate"] if gated else [], strict=recipe.strict)
    if "lacks" in done:
        raise MachineError(done["lacks"])


def _only_engine(values: dict[str, Any]) -> bool:
    """Whether nothing is asked of a bundle but its engine: then its checkpoint need not be here."""
    cache = {"calibration"} if Recipe.make(values).gives_cache else set()  # a calibration.json changes the graph too
    return values.get("backend") == "trt" and values.keys() <= {"backend", "device", "force", *cache, *ENGINE}
