"""Recipe to bundle: the steps in order, each skipped when its inputs are what they were.

First all graphs; then, into the bundle that already stands, an engine for this machine if it can make one.
"""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from toolchain.bundle import Bundle
from toolchain.bundle.engine_step import compile_plan, find_machine, resolved_profiles
from toolchain.bundle.resolved import ResolvedRecipe, resolve, resolve_bundle
from toolchain.bundle.steps import STEPS, parity_texts, versions
from toolchain.bundle.writer import BundleWriter, open_writer
from toolchain.data.labels import read_labels
from toolchain.data.rows import load_rows
from toolchain.engine.plan import PLANS
from toolchain.errors import MachineError, UsageError
from toolchain.recipe import ATTENTIONS, DEFAULT_MODEL, ENGINE, Recipe

OWN_CALIBRATION = "calibration.json"

TRANSIENT = (
    "output",
    "force",
    "dry_run",
    "backend",
    "device",
    "file",
    "limit",
    "trust",
    "confidence",
    "strict",
    "budget",
    "cuda_graphs",
    "compile",
    *ENGINE,
)
"""Options of one call, not of the bundle; those of an engine stand in its plan.json."""

Log = Callable[[str], None]


def build(
    recipe: Recipe, *, steps: Collection[str] | None = None, engine: bool = True, log: Log = lambda line: None
) -> dict[str, Any]:
    """Make or bring up to date the bundle that a recipe describes, by `steps` or those of its precision.

    With `engine`, an engine is made of its graph too: if `--backend trt` asks for it, or leaves it open and this
    machine can.

    Returns:
        A JSON record: bundle, precision, steps done and skipped, artefacts, the record of each step, the engine's
        record as `engine`, and as `lacks` why there is none although `--backend trt` asked for it.

    Raises:
        ToolchainError: see errors.py; the bundle that was there is then as it was, but for graphs that were made
            before an engine failed.
    """
    if recipe.attention in ATTENTIONS:
        raise UsageError(f"--attention {recipe.attention}: how PyTorch runs, for eval. Choose native or plugin.")
    resolved = resolve(recipe, steps)
    profiles = resolved_profiles(resolved)
    if recipe.dry_run:
        return {
            "bundle": str(resolved.bundle_folder),
            "precision": resolved.precision,
            "would_do": [*resolved.steps, *_planned(resolved, engine)],
        }
    # What is wrong with the data or the shapes shows before anything long is begun.
    parity_texts(resolved)
    if engine and recipe.backend == "trt" and profiles[-1].length[2] < resolved.max_length:
        longest = profiles[-1].length[2]
        log(f"rows of more than {longest} tokens will not run on this engine; the model takes {resolved.max_length}")
    if "calibrate" in resolved.steps and (not recipe.calibration or recipe.gives_cache):
        _ = resolved.holdout_rows if resolved.recipe.calib_method == "auto" else resolved.calibration_rows
    if recipe.max_drop is not None:
        read_labels(load_rows(resolved.task, recipe.split, data=recipe.data), resolved.task, resolved.source.labels)
    with open_writer(resolved.bundle_folder, force=recipe.force, log=log) as made:
        records = {name: STEPS[name](resolved, made) for name in resolved.steps}
        _retain_plans(made, resolved.precision)
        made.finish(_about(resolved, records))
    done = _summary(resolved, made, records)
    return _with_engine(resolved, done, log) if engine else done


def _wants_engine(recipe: Recipe) -> bool:
    """Whether an engine is asked for, or left open where there may be a GPU."""
    return recipe.backend == "trt" or (recipe.backend is None and recipe.device != "cpu")


def _planned(resolved: ResolvedRecipe, engine: bool) -> list[str]:
    """Return what a dry run says of the engine."""
    if not engine or not _wants_engine(resolved.recipe):
        return []
    try:
        return [find_machine(resolved.recipe.device).tag.folder]
    except MachineError as error:
        return [f"no engine ({error})"] if resolved.recipe.backend else []


def build_engine(bundle: Bundle, recipe: Recipe, *, log: Log = lambda line: None) -> dict[str, Any]:
    """Make or bring up to date the engine of a bundle for this machine; the checkpoint need not be here.

    Returns:
        A JSON record as of `build`.

    Raises:
        ToolchainError: see errors.py; the bundle is then as it was.
    """
    resolved = resolve_bundle(bundle, recipe)
    resolved_profiles(resolved)
    done = {
        "bundle": str(bundle.path),
        "precision": resolved.precision,
        "done": [],
        "up_to_date": True,
        "skipped": [name for name in bundle.manifest["steps"] if name in STEPS],
        "artefacts": sorted(bundle.manifest["artefacts"]),
    }
    return _with_engine(resolved, done, log)


def _with_engine(resolved: ResolvedRecipe, done: dict[str, Any], log: Log) -> dict[str, Any]:
    """Add the engine to a bundle that stands, if it is wanted and can be had, and tell so in `done`."""
    asked = resolved.recipe.backend
    if not _wants_engine(resolved.recipe):
        return done
    try:
        machine = find_machine(resolved.recipe.device)
    except MachineError as error:
        return done | ({"lacks": str(error)} if asked else {})
    redo = machine.tag.folder if resolved.recipe.force else None
    with open_writer(resolved.bundle_folder, redo=redo, log=log) as made:
        assert made.old is not None
        for name in made.old.manifest["steps"]:
            if name != machine.tag.folder:
                made.retain(name)
        record = compile_plan(resolved, made, machine)
        keys = ("schema", "sha256", "created", "steps", "artefacts")
        made.finish({key: value for key, value in made.old.manifest.items() if key not in keys})
    was = [machine.tag.folder]
    change = {"skipped": done["skipped"] + was} if made.skipped else {"done": done["done"] + was, "up_to_date": False}
    return done | change | {"engine": record, "artefacts": sorted(made.artefacts)}


def _retain_plans(made: BundleWriter, precision: str) -> None:
    """Carry engines over whose graph and ranges are what they were, those of other machines too."""
    steps = made.old.manifest["steps"] if made.old else {}
    for name in (name for name in steps if name.startswith(f"{PLANS}/")):
        record = steps[name]["record"]
        sources = [one for one in (record["graph"], record["calibration"]) if one and "file" in one]
        current = all(made.artefacts.get(one["file"]) == one["sha256"] for one in sources)
        if current and record["precision"] == precision:
            made.retain(name)


def _summary(resolved: ResolvedRecipe, made: BundleWriter, records: dict[str, Any]) -> dict[str, Any]:
    done = [name for name in resolved.steps if name not in made.skipped]
    return {
        "bundle": str(resolved.bundle_folder),
        "precision": resolved.precision,
        "up_to_date": not done,
        "done": done,
        "skipped": made.skipped,
        "artefacts": sorted(made.artefacts),
        **records,
    }


def _about(resolved: ResolvedRecipe, records: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the manifest that says what the bundle is."""
    fields = dataclasses.asdict(resolved.recipe)
    paths = ["model", "data", "calib_data", "calibration"]
    kept = {key: value for key, value in fields.items() if value is not None and key not in TRANSIENT}
    if resolved.recipe.gives_cache:
        del kept["calibration"]  # an engine's, like its calibrator
    if (
        kept.get("calibration")
        and Path(kept["calibration"]).resolve() == (resolved.bundle_folder / OWN_CALIBRATION).resolve()
    ):
        kept["calibration"] = OWN_CALIBRATION  # it moves with the bundle
        paths.remove("calibration")
    for key in paths:  # a bundle is used from other folders than the one it was built in
        if kept.get(key) not in (None, "demo") and Path(kept[key]).exists():
            kept[key] = str(Path(kept[key]).resolve())
    return {
        "model": {
            "id": kept.get("model", DEFAULT_MODEL),
            "type": resolved.source.type,
            "labels": resolved.source.labels,
            "sha256": resolved.source.digests,
        },
        "task": dataclasses.asdict(resolved.task),
        "precision": resolved.precision,
        "max_length": resolved.max_length,
        "inputs": records["export"]["inputs"],
        "outputs": records["export"]["outputs"],
        "parity": {name: record["parity"] for name, record in records.items() if "parity" in record},
        "calibration": records.get("calibrate"),
        "recipe": kept,
        "versions": versions("torch", "transformers", "onnx-ir", "onnxruntime", "onnxruntime-gpu"),
    }
