"""A build: it runs the steps that make a bundle from a recipe, and skips each step whose inputs have not changed.

The ONNX graphs are made first. Then TensorRT engines are added to the bundle, if they are wanted and can be built here.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from toolchain.base.tensors import Array
from toolchain.bundle import Bundle
from toolchain.bundle.data_check import check_data
from toolchain.bundle.engine_step import compile_plan, resolved_profiles
from toolchain.bundle.healed import STEP as HEAL
from toolchain.bundle.healed import add_healed
from toolchain.bundle.machine import Machine, check_engine_options, check_precision, find_targets
from toolchain.bundle.resolved_recipe import ResolvedRecipe, resolve, resolve_bundle
from toolchain.bundle.reuse import bundles_at
from toolchain.bundle.steps import STEPS, versions
from toolchain.bundle.trial import try_bundle
from toolchain.bundle.views import VIEWS, make_view, view_files
from toolchain.bundle.writer import BundleWriter, open_writer
from toolchain.checkpoint.model import Source
from toolchain.checkpoint.shrunk import read_shrink
from toolchain.data import demo
from toolchain.engine.plan import PLANS
from toolchain.engine.releases import RELEASES
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.recipe import DEFAULT_MODEL, Recipe
from toolchain.recipe.groups import ENGINE
from toolchain.recipe.tables import ATTENTIONS
from toolchain.records.bundle import BuildRecord, PoolingRecord
from toolchain.records.heal import HealRecord
from toolchain.records.shrink import ShrinkRecord

OWN_CALIBRATION = "calibration.json"

# Options that apply to one call only, so the manifest does not keep them. plan.json records the options of an engine.
TRANSIENT = (
    "output",
    "force",
    "reuse",
    "dry_run",
    "backend",
    "device",
    "target",
    "file",
    "limit",
    "trust",
    "confidence",
    "strict",
    "budget",
    "cuda_graphs",
    "compile",
    "halves",
    *ENGINE,
)

Log = Callable[[str], None]


def build(
    recipe: Recipe, *, steps: Collection[str] | None = None, engine: bool = True, log: Log = lambda line: None
) -> BuildRecord:
    """Build the bundle that a recipe describes, or bring it up to date; return a record of what was done.

    Args:
        recipe: the options of the build.
        steps: names of the steps to run, from STEPS; by default the steps that the recipe's precision needs.
        engine: True also builds engines: with `--backend trt-rtx` for each target; with `--backend trt`, or without a
            backend if that is possible, for the GPU of this machine.
        log: called with each line of progress.

    Raises:
        ToolchainError: see errors.py. An existing bundle is then unchanged; only if an engine cannot be built, the new
            graphs are kept.
    """
    if recipe.attention in ATTENTIONS:
        raise UsageError(
            f"--attention {recipe.attention}: only eval --backend torch takes this. To build, choose native or plugin."
        )
    resolved = resolve(recipe, steps)
    profiles = resolved_profiles(resolved)
    views = view_files(resolved.precision, recipe.views)
    if engine:
        check_engine_options(recipe, precision=resolved.precision)
    if recipe.reuse is not None:
        bundles_at(Path(recipe.reuse))  # raises its errors now, before any step runs
    if recipe.dry_run:
        return {
            "bundle": str(resolved.bundle_folder),
            "precision": resolved.precision,
            "would_do": [*resolved.steps, *(VIEWS[file].name for file in views), *_planned(resolved, engine)],
        }
    check_data(resolved)
    if engine and recipe.backend in RELEASES and profiles[-1].length[2] < resolved.max_length:
        longest, most = profiles[-1].length[2], resolved.max_length
        log(f"the engine will take up to {longest} tokens per row, the model {most}. --seq-len or --buckets sets this.")
    with open_writer(resolved.bundle_folder, force=recipe.force, log=log) as made:
        if made.old:
            made.old.require_one_model("build")
        views += [file for file in _views_of(made.old, resolved.precision) if file not in views]
        records = {name: STEPS[name].run(resolved, made) for name in resolved.steps}
        for file in views:
            records[VIEWS[file].name] = make_view(resolved, made, file)
        _retain_plans(made, resolved.precision)
        made.finish(_about(resolved, records), check=lambda folder: try_bundle(folder, resolved))
    done = _summary(resolved, made, records)
    return _with_engine(resolved, done, log) if engine else done


def _wants_engine(recipe: Recipe) -> bool:
    """Return whether to try to build an engine.

    True if the recipe names a TensorRT backend, or names no backend and does not choose the CPU.
    """
    return recipe.backend in RELEASES or (recipe.backend is None and recipe.device != "cpu")


def _planned(resolved: ResolvedRecipe, engine: bool) -> list[str]:
    """Return the lines for engines that a dry run prints: the folder of each plan, or why no engine can be built.

    The list is empty if no engine is wanted, or if none can be built and the recipe does not ask for one.
    """
    if not engine or not _wants_engine(resolved.recipe):
        return []
    try:
        return [machine.tag.folder for machine in find_targets(resolved.recipe)]
    except MachineError as error:
        return [f"no engine ({error})"] if resolved.recipe.backend else []


def build_engine(bundle: Bundle, recipe: Recipe, *, log: Log = lambda line: None) -> BuildRecord:
    """Build the engines of an existing bundle, or bring them up to date, without its checkpoint.

    Return a record of what was done.

    Raises:
        ToolchainError: see errors.py. The bundle is then unchanged.
    """
    resolved = resolve_bundle(bundle, recipe)
    resolved_profiles(resolved)
    check_engine_options(recipe, precision=resolved.precision)
    done: BuildRecord = {
        "bundle": str(bundle.path),
        "precision": resolved.precision,
        "done": [],
        "up_to_date": True,
        "skipped": [name for name in bundle.manifest["steps"] if name in STEPS],
        "artefacts": sorted(bundle.manifest["artefacts"]),
    }
    return _with_engine(resolved, done, log)


def _with_engine(resolved: ResolvedRecipe, done: BuildRecord, log: Log) -> BuildRecord:
    """Add the engines to a finished bundle, if they are wanted and can be built here.

    `done` is the record of the build so far; return it with what this function added.
    """
    asked = resolved.recipe.backend
    if not _wants_engine(resolved.recipe):
        return done
    try:
        machines = find_targets(resolved.recipe)
        for machine in machines:
            check_precision(machine, resolved.precision)
    except MachineError as error:
        if resolved.precision == "fp8" and not asked:
            log(f"no engine: {error}")
        return {**done, "lacks": str(error)} if asked else done
    for machine in machines:
        done = _add_engine(resolved, machine, done, log)
    return done


def _add_engine(resolved: ResolvedRecipe, machine: Machine, done: BuildRecord, log: Log) -> BuildRecord:
    """Add the engine for one machine to a finished bundle; return the record `done` with this engine added."""
    folder = machine.tag.folder
    source = machine.release.graphs[resolved.precision]
    views = [source] if source in VIEWS and resolved.recipe.attention != "plugin" else []
    names = [*(VIEWS[file].name for file in views), folder]
    with open_writer(resolved.bundle_folder, redo=folder if resolved.recipe.force else None, log=log) as made:
        assert made.old is not None
        made.old.require_one_model("build")
        for name in made.old.manifest["steps"]:
            if name not in names:
                made.retain(name)
        for file in views:
            make_view(resolved, made, file)
        record = compile_plan(resolved, made, machine)
        made.finish(_about_of(made.old))
    engines = [*done.get("engines", []), record]
    ran = [name for name in names if name not in made.skipped]
    known = {*done["done"], *done["skipped"]}  # a view that several targets share is not listed as skipped
    return {
        **done,
        "engine": engines[0],
        "engines": engines,
        "artefacts": sorted(made.artefacts),
        "done": [*done["done"], *ran],
        "skipped": [*done["skipped"], *(name for name in made.skipped if name not in known)],
        "up_to_date": done["up_to_date"] and not ran,
    }


def requantize(
    bundle: Bundle,
    resolved: ResolvedRecipe,
    weights: Mapping[str, Array],
    record: HealRecord,
    *,
    learnt: Iterable[str],
    judge: Callable[[Path, HealRecord], HealRecord],
    accept: Callable[[Path], None],
    log: Log = lambda line: None,
) -> HealRecord:
    """Make the INT8 graphs of a bundle again from the weights that `toolchain heal` found, and return heal's record.

    TensorRT plans that were built from the old INT8 graphs are removed. All other files stay as they are.

    Args:
        bundle: the bundle as it was when the weights were healed.
        resolved: the bundle's recipe.
        weights: the healed weights, float32, by their name in the smoothed graph.
        record: heal's record before it is judged.
        learnt: digests of the rows that the weights were healed on.
        judge: called with the folder of the new graphs and `record`; returns the record to keep, or raises.
        accept: called with the same folder once it is a whole bundle; raises to keep the old version.
        log: called with each line of progress.

    Raises:
        InputError: the bundle was changed while its weights were healed.
        ToolchainError: see errors.py. The bundle is then unchanged.
    """
    with open_writer(bundle.path, log=log) as made:
        if made.old is None or made.old.digest != bundle.digest:
            raise InputError(f"{bundle.path}: the bundle was changed while it was healed. Run toolchain heal again.")
        views = _views_of(made.old, resolved.precision)
        redone = {HEAL, "quantize", *(VIEWS[file].name for file in views)}
        for name in made.old.manifest["steps"]:
            if name not in redone and not name.startswith(f"{PLANS}/"):
                made.retain(name)
        add_healed(made, weights, record, learnt)
        parity = STEPS["quantize"].run(resolved, made)["parity"]
        for file in views:
            make_view(resolved, made, file)
        made.steps[HEAL]["record"] = found = judge(made.folder, record)
        _retain_plans(made, resolved.precision)
        for name in made.old.manifest["steps"].keys() - made.steps.keys():
            log(f"{name} was made from the old graph and is removed. Make it again with: toolchain build {bundle.path}")
        about = _about_of(made.old)
        about["parity"] = {**about["parity"], "quantize": parity}
        made.finish(about, check=_trial(resolved, accept))
    return found


def _trial(resolved: ResolvedRecipe, accept: Callable[[Path], None]) -> Callable[[Path], None]:
    """Return a function that opens the new version of a bundle in a folder, to check it, and then calls `accept`."""

    def check(folder: Path) -> None:
        try_bundle(folder, resolved)
        accept(folder)

    return check


def _about_of(old: Bundle) -> dict[str, Any]:  # some keys of a Manifest
    """Return the keys of a manifest that `BundleWriter.finish` does not write itself: model, task, recipe and so on."""
    keys = ("schema", "sha256", "created", "steps", "artefacts")
    return {key: value for key, value in old.manifest.items() if key not in keys}


def _views_of(old: Bundle | None, precision: str) -> list[str]:
    """Return the files of the views (views.py) in this precision that the old version of a bundle has."""
    steps = old.manifest["steps"] if old else {}
    return [file for file, view in VIEWS.items() if view.name in steps and view.precision == precision]


def _retain_plans(made: BundleWriter, precision: str) -> None:
    """Copy into the new version every engine whose graph and calibration are unchanged, whatever GPU it is for."""
    steps = made.old.manifest["steps"] if made.old else {}
    for name in (name for name in steps if name.startswith(f"{PLANS}/")):
        record = steps[name]["record"]
        sources = [one for one in (record["graph"], record["calibration"]) if one and "file" in one]
        current = all(made.artefacts.get(one["file"]) == one["sha256"] for one in sources)
        if current and record["precision"] == precision:
            made.retain(name)


def _summary(resolved: ResolvedRecipe, made: BundleWriter, records: Mapping[str, Mapping[str, Any]]) -> BuildRecord:
    done = [name for name in records if name not in made.skipped]
    record = {
        "bundle": str(resolved.bundle_folder),
        "precision": resolved.precision,
        "up_to_date": not done,
        "done": done,
        "skipped": made.skipped,
        "artefacts": sorted(made.artefacts),
        **records,
    }
    return cast(BuildRecord, record)


def _about(resolved: ResolvedRecipe, records: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the keys of the manifest that describe the whole bundle, such as its model, task, recipe and versions."""
    kept = _kept_recipe(resolved)
    return {
        "model": {
            "id": kept.get("model", DEFAULT_MODEL),
            "type": resolved.source.type,
            "labels": resolved.source.labels,
            "values": resolved.source.facts.values,
            "pad_id": resolved.source.facts.pad_id,
            "tokenizer": records["export"].get("tokenizer"),
            "batches": "equal_length" if resolved.source.facts.equal_length else "padded",
            **_pooling(resolved.source),
            "sha256": resolved.source.digests,
        },
        **_shrunk(resolved.source),
        "task": resolved.task.to_json(),
        "precision": resolved.precision,
        "max_length": resolved.max_length,
        "inputs": records["export"]["inputs"],
        "outputs": records["export"]["outputs"],
        "parity": {name: record["parity"] for name, record in records.items() if "parity" in record},
        "calibration": records.get("calibrate"),
        "recipe": kept,
        "versions": versions("torch", "transformers", "onnx-ir", "onnxruntime", "onnxruntime-gpu"),
    }


def _pooling(source: Source) -> dict[str, PoolingRecord]:
    """Return the key `pooling` of the manifest's `model` for an embedding model; nothing for other models."""
    pooling, width = source.pooling, source.facts.width
    if pooling is None or width is None:
        return {}
    return {"pooling": {"mode": pooling.mode, "normalize": pooling.normalize, "width": width}}


def _shrunk(source: Source) -> dict[str, ShrinkRecord]:
    """Return the key `shrink` of the manifest for a checkpoint that `toolchain shrink` made; nothing for others."""
    record = read_shrink(source.folder)
    return {"shrink": record} if record else {}


def _kept_recipe(resolved: ResolvedRecipe) -> dict[str, Any]:  # each option has its own type
    """Return the recipe that the manifest keeps: options other than TRANSIENT, with the paths made absolute."""
    fields = dataclasses.asdict(resolved.recipe)
    paths = ["model", "data", "calib_data", "calibration"]
    kept = {key: value for key, value in fields.items() if value is not None and key not in TRANSIENT}
    # The method itself, not None: the default depends on the gate, and a later gate must not change the ranges.
    kept["calib_method"] = resolved.recipe.range_method
    if resolved.recipe.gives_cache:
        del kept["calibration"]  # this is a calibration cache, which belongs to the engine only
    if (
        kept.get("calibration")
        and Path(kept["calibration"]).resolve() == (resolved.bundle_folder / OWN_CALIBRATION).resolve()
    ):
        kept["calibration"] = OWN_CALIBRATION  # a relative path, because the bundle may be moved
        paths.remove("calibration")
    for key in paths:  # absolute, because later commands may run in another folder
        if kept.get(key) not in (None, *demo.MODELS) and Path(kept[key]).exists():
            kept[key] = str(Path(kept[key]).resolve())
    return kept
