"""The whole evaluation of a bundle (`toolchain eval`), and the demo from checkpoint to report (`toolchain demo`)."""

import contextlib
import json
import logging
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from toolchain.base.files import read_json, sha256_file, sha256_json, write_text
from toolchain.base.progress import bar
from toolchain.bundle import RESULTS, Bundle
from toolchain.bundle.build import build
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.data.labels import check_texts
from toolchain.data.metrics import Values
from toolchain.data.rows import Rows, load_rows
from toolchain.energy.evaluation import LOAD_ROWS, open_session, require
from toolchain.errors import InputError
from toolchain.evaluation import measure as evaluation
from toolchain.evaluation.learnt_rows import learnt_rows
from toolchain.evaluation.mlperf.loadgen import require_loadgen
from toolchain.evaluation.mlperf.scenario import ScenarioRun, run_scenario
from toolchain.evaluation.original import NAME as ORIGINAL
from toolchain.evaluation.original import find_original
from toolchain.evaluation.remarks import remarks
from toolchain.evaluation.results import SCHEMA, read_predictions, save_predictions, save_result
from toolchain.evaluation.runtime_choice import find_to_run
from toolchain.evaluation.stages import run_choices, stage_run
from toolchain.evaluation.target import CHOSEN_ROWS, Reference, Target, find_reference
from toolchain.heads.predictions import Predictions
from toolchain.int8.calibrate import read_calibration
from toolchain.profile.roofline import assess
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues
from toolchain.records.demo import DemoRecord
from toolchain.records.energy import EnergyBlock
from toolchain.records.result import Agreement, FileDigest, Result, Speed, Timing, WhatRan
from toolchain.records.roofline import RooflineBlock
from toolchain.report.html import html
from toolchain.report.inputs import Material
from toolchain.report.markdown import markdown
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run_texts
from toolchain.runtimes.environment import describe

log = logging.getLogger(__name__)

# Largest fraction of the evaluated rows that may also be calibration rows: some of GLUE's tasks have such rows.
MAX_SHARED_ROWS = 0.01


# A function that shows a line to the user.
Say = Callable[[str], None]


def evaluate(
    changes: RecipeValues,
    *,
    bundle: Path | None = None,
    named: Path | None = None,
    tell: Say = log.info,
    remark: Say = log.warning,
) -> Result:
    """Evaluate a model on one backend and one task; save the result and return it.

    `changes` are options by their keys; the bundle's recipe supplies the others. Without a bundle, the checkpoint in
    `model` runs in PyTorch. The result's command names `named`, if given, not the bundle. `remark` takes each warning.

    Raises:
        ToolchainError: see errors.py.
    """
    target = find_to_run(changes, bundle)
    resolved, recipe = target.resolved, target.resolved.recipe
    if recipe.scenario:
        require_loadgen()
    rows, references = _labelled_rows(target)
    with rows.placed():
        found, speed, energy, scenario = _measure(target, rows, references, tell)
    roofline = _roofline(target, speed, rows=len(resolved.head.sequences(rows.texts)), tell=tell)
    tell("comparing the predictions with FP32")
    kept = save_predictions(target.folder / f"{(stem := _stem(target))}.npz", found)
    values = {
        "schema": SCHEMA,
        "task": resolved.task.name,
        "split": recipe.split,
        "n": len(rows),
        "data_sha256": rows.digest,
        "predictions": kept,
        **_what_ran(target, rows),
        "primary": resolved.task.primary,
        **evaluation.score(found, resolved.head, seed=recipe.seed),
        "agreement": _agreement(target, rows, references, found, kept),
        **speed,
        "roofline": roofline,
        "energy": energy,
        "mlperf": scenario.save(target.folder, stem) if scenario else None,
        **_origin(resolved, command_of(changes, named or bundle or (target.bundle.path if target.bundle else None))),
    }
    values["file"] = str(save_result(target.folder, stem, result := cast(Result, values)))
    for line in remarks(result):
        remark(line)
    if recipe.require_energy:
        require(energy)
    return result


def _origin(resolved: ResolvedRecipe, command: str) -> dict[str, object]:
    """Return the keys of a result that say how and when it was measured."""
    return {
        "max_length": resolved.max_length,
        "environment": describe(),
        "seed": resolved.recipe.seed,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def command_of(changes: RecipeValues, bundle: Path | None) -> str:
    """Return the command that repeats an evaluation. It gives options with --set, which takes any value of a recipe."""
    asked = {key: value for key, value in changes.items() if value is not None and not (bundle and key == "model")}
    sets = [part for key, value in asked.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return shlex.join(["toolchain", "eval", *([str(bundle)] if bundle else []), *sets])


def _what_ran(target: Target, rows: Rows) -> WhatRan:
    """Return the keys of a result that say which model ran, on which backend and device."""
    return {
        "model": target.resolved.source.name,
        "backend": target.backend,
        "device": target.device,
        "halves": target.resolved.recipe.halves,
        "precision": target.precision,
        "artefact": target.artefact,
        "variant": target.variant,
        "cascade": stage_run(target, rows),
        "learnt_rows": learnt_rows(target, rows),
    }


def _measure(
    target: Target, rows: Rows, references: Values, tell: Callable[[str], None]
) -> tuple[Predictions, Speed, EnergyBlock, ScenarioRun | None]:
    """Run a target on the rows, and measure it.

    Return its predictions, its timing and memory, its energy, and the run of MLPerf's scenario (None without one).
    """
    resolved, seed = target.resolved, target.resolved.recipe.seed
    texts = resolved.head.sequences(rows.texts)
    with open_session(resolved.recipe, target.device, log=tell) as session:
        tell(f"opening {target.backend} on {target.device}")
        if not target.remote:  # load it now, because it takes seconds and the runtime is timed later
            _ = target.resolved.tokenizer
        with open_runtime(target.backend, target.model, **run_choices(target)) as infer:
            logits, speed = evaluation.measure(
                infer,
                target.encode,
                texts,
                seed=seed,
                log=tell,
                device="cpu" if target.remote else target.device,
                warm_up_all=resolved.recipe.cuda_graphs,
                find_cut=resolved.find_cut,
            )
            slots = speed["tokens"]["batch_slots"]
            session.measure(infer, resolved.encode, rows.sample(LOAD_ROWS, seed=seed).texts, max_slots=slots, log=tell)
            asked = resolved.recipe.scenario is not None
            scenario = run_scenario(resolved.recipe, infer, target.encode, texts, speed, tell=tell) if asked else None
        found = resolved.head.about(rows.texts).predict(references, logits)
        energy = session.block(evaluation.share_correct(found))
    if target.remote:  # this process is only the client of the server
        speed["peak_memory_mb"] = {"host": None, "device": None}
    return found, speed, energy, scenario


def _roofline(target: Target, speed: Timing, *, rows: int, tell: Callable[[str], None]) -> RooflineBlock:
    if not target.remote:
        tell("measuring the roofline of this machine: its highest FLOP/s and memory bandwidth")
    at = {"backend": target.backend, "device": target.device, "precision": target.precision}
    graph = None if target.bundle and target.bundle.is_cascade else target.graph  # this graph does not run every row
    return assess(graph, speed, rows=rows, **at)


def _stem(target: Target) -> str:
    """Return the file name of a result without suffix, made of task, split, backend, device, variant and limits."""
    recipe = target.resolved.recipe
    limited = [f"first{recipe.limit}"] if recipe.limit else []
    scenario = [recipe.scenario] if recipe.scenario else []
    scenario += [f"{recipe.target_qps:g}qps"] if recipe.target_qps else []
    parts = [target.resolved.task.name, recipe.split, target.backend, target.device.replace(":", ""), target.variant]
    return "-".join([*parts, *limited, *scenario])


def _labelled_rows(target: Target) -> tuple[Rows, Values]:
    """Return the rows to evaluate, and their labels, one for each row."""
    rows = _rows(target)
    check_texts(rows)
    return rows, target.resolved.head.read(rows)


def _rows(target: Target) -> Rows:
    """Load the rows to evaluate.

    Raises:
        InputError: too many of them are calibration or hold-out rows of the bundle.
    """
    recipe = target.resolved.recipe
    rows = load_rows(target.resolved.task, recipe.split, **recipe.reading)
    if recipe.limit:
        rows = rows.take(range(min(recipe.limit, len(rows))))
    if target.bundle:
        refuse_calibrated(target.bundle, rows)
    return rows


def refuse_calibrated(bundle: Bundle, rows: Rows) -> None:
    """Raise an error if rows to evaluate are calibration rows of the bundle, or rows on which its options were chosen.

    A few such rows, as two random splits may share them, only cause a warning.

    Raises:
        InputError: there are more such rows than chance explains.
    """
    if "calibration.json" not in bundle.manifest["artefacts"]:
        return
    about = read_calibration(bundle.file("calibration.json")).about
    if "row_sha256" not in about:
        log.warning(
            "%s: the bundle does not list its calibration rows, so the evaluated rows may include some of them. "
            "Evaluate rows that were not used for calibration",
            bundle.path,
        )
    known = {*about.get("row_sha256", []), *about.get("chosen_sha256", [])}
    if any(bundle.manifest["recipe"].get(name) for name in ("keep", "residual")):
        with contextlib.suppress(InputError):  # the bundle may have been moved without the record of `tune`
            file = bundle.path / RESULTS / CHOSEN_ROWS
            known |= set(read_json(file, what="the list of rows that tune used", advice="Run toolchain tune again."))
    why = "were used for calibration. Evaluate other rows, or calibrate with other rows (--calib-data)."
    shared = rows.count_known(known, most=MAX_SHARED_ROWS, why=why)
    if shared:
        log.warning("%d of the %d evaluated rows are also calibration rows of the bundle", shared, len(rows))


def _agreement(target: Target, rows: Rows, references: Values, found: Predictions, kept: FileDigest) -> Agreement:
    """Return how far the predictions `found` agree with the predictions of the FP32 reference.

    `kept` is the file with `found`, which the record names if the evaluated model is the reference itself.
    """
    reference, name, kept_reference = _reference(target, rows, references) or (found, "torch-fp32", kept)
    agreement = evaluation.agreement(found, reference, target.resolved.head, name=name)
    changed = evaluation.changed_rows(found, reference, rows.texts, target.resolved.head)
    return {**agreement, "predictions": kept_reference, "changed_rows": changed}


def _reference(target: Target, rows: Rows, references: Values) -> tuple[Predictions, str, FileDigest] | None:
    """Return the predictions of the FP32 reference for these rows, its name, and the file in which they are saved.

    The result is None if the target is the reference itself. A shrunk checkpoint has the original model as reference.
    Saved predictions are reused if the model, the rows, the labels and the truncation length are the same.
    """
    original = find_original(target)
    if target.is_reference and not original:
        return None
    resolved = target.resolved
    name, backend, model = Reference(ORIGINAL, "torch", original) if original else find_reference(target)
    digests = target.bundle.manifest["model"]["sha256"] if target.bundle else resolved.source.digests
    digests = original.digests if original else digests
    labels = [*resolved.head.key, references.tolist()]  # a task may change the order of the labels
    key = sha256_json([name, digests, rows.digest, resolved.max_length, labels])
    file = target.folder / f"reference-{key[:16]}.npz"
    found = read_predictions(file)
    if found is None or len(found.logits) != len(rows):
        with open_runtime(backend, model, device="cpu") as infer, bar(len(rows), name, unit="rows") as advance:
            logits = run_texts(infer, resolved.encode, rows.texts, advance=advance).logits
        found = resolved.head.about(rows.texts).predict(references, logits)
        return found, name, save_predictions(file, found)
    return found, name, {"file": file.name, "sha256": sha256_file(file)}


def demo(*, output: Path | None = None, tell: Callable[[str], None] = log.info) -> DemoRecord:
    """Build the built-in model in INT8, evaluate it on its own data, and write a report in Markdown and in HTML.

    `output` is the folder of the bundle, with the default of a build.
    """
    options = {"model": "demo", "task": "demo", "precision": "int8"}
    options |= {"output": str(output)} if output else {}
    built = build(Recipe.make(options), log=tell)
    folder = Path(built["bundle"])
    results = []
    for backend, precision in (("torch", "fp32"), ("ort", "fp32"), ("ort", "int8")):
        tell(f"evaluating {backend} {precision}")
        choices = {"backend": backend, "precision": precision, "device": "cpu"}
        results.append(evaluate(choices, bundle=folder, tell=tell))
    report, page = folder / RESULTS / "report.md", folder / RESULTS / "report.html"
    write_text(report, markdown(results))
    write_text(page, html(Material(results)))
    return {"build": built, "results": results, "report": str(report), "page": str(page)}
