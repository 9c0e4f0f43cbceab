"""The public Python API: `build`, `evaluate`, `compare`, `measure_energy` and `load`, imported from `toolchain` itself.

The functions do what the commands do, with keyword arguments in place of options. `**options` takes every other option
of the command line, with `_` for `-`, such as `calib_samples=256`; `toolchain build --help` and `toolchain eval --help`
list them. Errors are subclasses of `toolchain.errors.ToolchainError`. Progress is logged to the logger `toolchain`.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.energy.power import measure as measure_energy
from toolchain.errors import MachineError, UsageError
from toolchain.recipe import Recipe
from toolchain.recipe.groups import ENGINE
from toolchain.recipe.options import RecipeValues, joined

if TYPE_CHECKING:
    from toolchain.evaluation.classifier import Classifier
    from toolchain.records.bundle import BuildRecord
    from toolchain.records.comparison import NamedComparison
    from toolchain.records.result import Result

__all__ = ["build", "compare", "evaluate", "load", "measure_energy"]

log = logging.getLogger("toolchain")

Place = str | os.PathLike[str]
"""A file or a folder."""

Option = str | os.PathLike[str] | int | float | bool | Sequence[str] | None
"""The value of an option; None means that it is not given."""


def build(
    source: Place | None = None,
    *,
    model: Place | None = None,
    task: Place | None = None,
    data: Place | None = None,
    precision: str | None = None,
    backend: str | None = None,
    output: Place | None = None,
    max_drop: float | None = None,
    **options: Option,
) -> "BuildRecord":
    """Build a bundle, or bring one up to date: export to ONNX, calibrate, make INT8 or FP16 graphs, build an engine.

        built = toolchain.build(model="demo", task="demo", precision="int8")
        print(built["bundle"])

    Args:
        source: a recipe (*.toml), the folder of a checkpoint, or a bundle to build again with other options.
        model: a hub id, the folder of a checkpoint, or "demo", "demo-tokens", "demo-multilabel".
        task: a GLUE task, "demo" (for a demo model, the default is the task of the same name), "custom" (with
            `text_column` and `label_column`), or a TOML file.
        data: folder with train.* and validation.*; by default GLUE from the hub.
        precision: "fp32", "fp16", "int8" or "fp8"; by default fp16 with a GPU and int8 without.
        backend: "trt" requires an engine for this machine; by default an engine is built if that is possible.
        output: the bundle's folder; by default engines/build/<model>-<task>-<precision>.
        max_drop: the largest drop of the task's metric that is allowed, in points (1/100).
        **options: every other key of a recipe, such as calib_samples, calib_method, max_length, force, dry_run.

    Returns:
        The record that `toolchain build --json` prints: the bundle's path, the steps that ran or were skipped, the
        record of each step, and with `max_drop` the comparisons with FP32.

    Raises:
        GateError: the metric drops by more than `max_drop`. The new bundle is kept.
        MachineError: `backend="trt"`, and this machine cannot build an engine. The bundle is kept, without an engine.
        ToolchainError: any other error, see errors.py. A bundle that existed before is unchanged.
    """
    named = {"model": model, "task": task, "data": data, "precision": precision, "backend": backend, "output": output}
    recipe, bundle = (None, source) if source and Path(source).suffix != ".toml" else (source, None)
    values = Recipe.values(_given(**named, max_drop=max_drop, **options), file=Path(recipe) if recipe else None)
    done, resolved = run_build(values, bundle=Path(bundle) if bundle else None)
    judge_build(done, resolved)
    return done


def run_build(
    values: RecipeValues, *, bundle: Path | None = None, goal: tuple[str, ...] = ()
) -> "tuple[BuildRecord, Recipe]":
    """Run a build with the options `values`, and with `max_drop` compare its graphs and engines with FP32.

    `bundle` is a bundle to build again, or a checkpoint's folder. `goal` names steps to run: for a bundle in addition
    to the bundle's own, otherwise only these. Without it, the steps that the precision needs are run.

    Returns:
        The record of the build, with the comparisons as `gate` if the recipe has a `max_drop`, and the recipe.

    Raises:
        ToolchainError: see errors.py.
    """
    from toolchain.bundle import MANIFEST, open_bundle
    from toolchain.bundle import build as bundles
    from toolchain.diagnose.gate import gate
    from toolchain.diagnose.way_on import after_build
    from toolchain.evaluation.target import recorded
    from toolchain.generate import build as language_models

    steps: tuple[str, ...] | None = goal or None
    if bundle and bundle.is_dir() and not (bundle / MANIFEST).exists():
        values, bundle = _of_checkpoint(bundle, values), None
    if bundle:
        opened = open_bundle(bundle, check_files=not values.get("force"), lm=None)
        recipe = recorded(opened, values)
        steps = None if "precision" in values else (*opened.manifest["steps"], *goal)
    else:
        recipe = Recipe.make(values | ({"precision": "fp32"} if goal else {}))
    if recipe.task == language_models.TASK:
        if goal:
            raise UsageError(f"{goal[-1]}: not for a language model. Use: toolchain build --task {recipe.task}.")
        return language_models.build(recipe, log=log.info), recipe
    if bundle and _asks_for_engine_only(values):
        done = bundles.build_engine(opened, recipe, log=log.info)
    else:
        done = bundles.build(recipe, steps=steps, engine=not goal, log=log.info)
    if recipe.max_drop is not None and not recipe.dry_run:
        built = done.get("engines", [])
        engines = [one["file"] for one in built if one["gpu"] is not None]
        for one in (one for one in built if one["gpu"] is None):
            way_on = f"toolchain eval {done['bundle']} --backend {one['backend']}"
            text = "%s: this plan was not checked, because it runs on its target GPU only. Run on such a GPU: %s"
            log.warning(text, one["file"], way_on)
        done["gate"], done["deploy"] = gate(Path(done["bundle"]), recipe, engines=engines, tell=log.info)
    elif not recipe.dry_run:
        done["next"] = after_build(done, recipe)
    return done, recipe


def _of_checkpoint(folder: Path, values: RecipeValues) -> RecipeValues:
    """Return the options `values` with `folder`, the folder of a checkpoint, as the model.

    Raises:
        UsageError: the options name a model already.
    """
    if values.get("model"):
        raise UsageError(
            f"{folder}: this folder is not a bundle, and --model {values['model']} was given too. "
            "Leave one of them out."
        )
    return {**values, "model": str(folder)}


def _asks_for_engine_only(values: RecipeValues) -> bool:
    """Return whether the options `values` only add an engine to a bundle; this does not need its checkpoint."""
    from toolchain.engine.releases import RELEASES

    # A calibration cache changes the engine only; a calibration.json changes the graph too.
    cache = {"calibration"} if Recipe.make(values).gives_cache else set()
    engine = {"backend", "target", "device", "force", "reuse", *cache, *ENGINE}
    return values.get("backend") in RELEASES and values.keys() <= engine


def judge_build(done: "BuildRecord", recipe: Recipe) -> None:
    """Raise an error if a finished build does not pass the gate, or lacks the engine that was asked for.

    Raises:
        GateError: the metric drops by more than the recipe's `max_drop`. With `strict`, also if the rows are too few to
            tell.
        MachineError: an engine was asked for, and this machine cannot build it.
    """
    from toolchain.diagnose.gate import judge

    way_on = done["deploy"]["next"] if "deploy" in done else None
    judge(done.get("gate", []), strict=recipe.strict, way_on=way_on)
    if "lacks" in done:
        raise MachineError(done["lacks"])


def evaluate(
    bundle: Place | None = None,
    *,
    backend: str = "ort",
    model: Place | None = None,
    task: Place | None = None,
    data: Place | None = None,
    split: str | None = None,
    precision: str | None = None,
    device: str | None = None,
    limit: int | None = None,
    energy: bool = False,
    **options: Option,
) -> "Result":
    """Evaluate a model on one backend and one task: accuracy, latency, throughput, memory, and energy if asked for.

        result = toolchain.evaluate("engines/build/demo-demo-int8")
        print(result["metrics"], result["throughput_per_s"])

    Args:
        bundle: the bundle's folder; by default the bundle that was built last, in the current folder or below it.
        backend: "torch", "ort", "openvino", "trt", "ort-trt", "triton" or "service" (the last two with `url`).
        model: a checkpoint to run without a bundle, with `backend="torch"`.
        task: a task to use instead of the bundle's.
        data: folder with the rows; by default the data with which the bundle was built.
        split: the split to evaluate; by default "validation".
        precision: "fp32", "fp16", "bf16" or "int8"; by default the bundle's (for torch fp32).
        device: "auto", "cpu" or "cuda[:N]"; by default "auto".
        limit: number of rows to evaluate, from the first one on; by default all.
        energy: True also measures energy, in a separate run under constant load, which takes minutes.
        **options: every other key of a recipe, such as file, attention, cuda_graphs, seed, trust.

    Returns:
        The result. It is also saved below the bundle's folder results/, or below eval/results/ without a bundle; the
        path is in `result["file"]`.

    Raises:
        ToolchainError: see errors.py.
    """
    from toolchain import workflow

    named = {"model": model, "task": task, "data": data, "split": split, "precision": precision, "device": device}
    values = _given(backend=backend, **named, limit=limit, energy=energy or None, **options)
    return workflow.evaluate(values, bundle=Path(bundle) if bundle else None)


def compare(
    results: "Sequence[Place | Result]",
    *,
    max_drop: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> "list[NamedComparison]":
    """Compare results with a baseline, row by row: the drop of the metric, its bounds, and with `max_drop` a verdict.

        (found,) = toolchain.compare([fp32_result, int8_result], max_drop=0.5)
        print(found["drop_points"], found["bounds_points"], found["verdict"])

    Args:
        results: results as `evaluate` returns them, their files, or bundles. The first is the baseline; if there is
            only one, its baseline is its own FP32 reference. A bundle without a result is evaluated.
        max_drop: the largest drop of the task's metric that is allowed, in points (1/100).
        confidence: confidence level of each one-sided bound of the drop.
        seed: seed of the bootstrap, which is used for metrics other than accuracy.

    Returns:
        One record for each result but the baseline. `verdict` is "passes", "fails" or "cannot tell"; a verdict of
        "fails" raises no error.

    Raises:
        ToolchainError: a file or folder has no result, or the results have different rows; see errors.py.
    """
    from toolchain.diagnose.gate import compare_results

    places = [Path(str(one["file"]) if isinstance(one, dict) else one) for one in results]
    recipe = Recipe.make(_given(max_drop=max_drop, confidence=confidence, seed=seed))
    return compare_results(places, recipe, tell=log.info)


def load(
    bundle: Place | None = None,
    *,
    backend: str = "ort",
    device: str = "auto",
    precision: str | None = None,
    trust: str | None = None,
    **options: Option,
) -> "Classifier":
    """Open a bundle as a classifier, which is called like a text-classification pipeline of transformers.

        with toolchain.load("engines/build/demo-demo-int8") as classifier:
            print(classifier("a gripping film"))  # [{"label": "positive", "score": 0.98}]

    Args:
        bundle: the bundle's folder; by default the bundle that was built last, in the current folder or below it. The
            digests of all its files are checked.
        backend: "ort", "openvino", "trt", "ort-trt", "torch" (runs the checkpoint), "triton" or "service" (the last
            two with `url`).
        device: "auto", "cpu" or "cuda[:N]".
        precision: precision of the graph or engine to run; by default the bundle's.
        trust: the digest that the bundle must have (`sha256` in its bundle.json).
        **options: every other key of a recipe, such as file, attention, cuda_graphs, url.

    Raises:
        ToolchainError: the bundle is broken or changed, or this machine lacks something; see errors.py.
    """
    from toolchain.evaluation.classifier import Classifier
    from toolchain.evaluation.runtime_choice import find_to_run

    values = _given(backend=backend, device=device, precision=precision, trust=trust, **options)
    return Classifier(find_to_run(values, Path(bundle) if bundle else None))


def _given(**values: Option) -> RecipeValues:
    """Return the options that are not None, as a recipe has them: paths as strings, and lists joined by commas."""
    texts = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in values.items()}
    return {
        key: joined(list(value) if isinstance(value, tuple) else value)
        for key, value in texts.items()
        if value is not None
    }
