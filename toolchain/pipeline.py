"""Whole paths in order: evaluate a bundle, and the demo that goes from checkpoint to report."""

import contextlib
import json
import logging
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from toolchain.bundle import RESULTS, Bundle
from toolchain.bundle.build import build
from toolchain.data.labels import read_labels
from toolchain.data.metrics import Values
from toolchain.data.rows import Rows, load_rows
from toolchain.energy.evaluation import LOAD_ROWS, open_session, require
from toolchain.errors import InputError
from toolchain.evaluation import measure as evaluation
from toolchain.evaluation.compare import Predictions
from toolchain.evaluation.results import SCHEMA, read_predictions, save_predictions, save_result
from toolchain.evaluation.target import CHOSEN_ROWS, Target, find_reference, find_target
from toolchain.files import sha256_file, sha256_json, write_text
from toolchain.mlperf.loadgen import require_loadgen
from toolchain.mlperf.scenario import ScenarioRun, run_scenario
from toolchain.progress import bar
from toolchain.recipe import Recipe
from toolchain.records.energy import EnergyBlock
from toolchain.records.result import Result
from toolchain.report.html import html
from toolchain.report.inputs import Material
from toolchain.report.markdown import markdown
from toolchain.roofline import assess
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run_texts
from toolchain.runtimes.environment import describe

log = logging.getLogger(__name__)

MAX_SHARED_ROWS = 0.01
CHANCE_ROWS = 2
"""Rows that may by chance be in both splits, as some of GLUE's are: this share, or this many."""


def evaluate(changes: dict[str, Any], *, bundle: Path | None = None, tell: Callable[[str], None] = log.info) -> Result:
    """Evaluate one backend on one task, save the result and return it (design: result keys).

    `changes` are options as in a recipe; what they leave open comes from the bundle. Without a
    bundle and with `model` in `changes`, the checkpoint itself runs on torch.

    Raises:
        ToolchainError: see errors.py.
    """
    target = find_target(changes, bundle)
    resolved, recipe = target.resolved, target.resolved.recipe
    if recipe.scenario:
        require_loadgen()
    rows = _rows(target)
    references = read_labels(rows, resolved.task, resolved.source.labels)
    found, speed, energy, scenario = _measure(target, rows, references, tell)
    tell("comparing with FP32")
    stem = _stem(target)
    kept = save_predictions(target.folder / f"{stem}.npz", found)
    reference, name, kept_reference = _reference(target, rows, references) or (found, "torch-fp32", kept)
    values: dict[str, Any] = {  # with the keys of a Result
        "schema": SCHEMA,
        "task": resolved.task.name,
        "split": recipe.split,
        "n": len(rows),
        "data_sha256": rows.digest,
        "predictions": kept,
        "model": resolved.source.name,
        "backend": target.backend,
        "device": target.device,
        "precision": target.precision,
        "artefact": target.artefact,
        "variant": target.variant,
        "primary": resolved.task.primary,
        **evaluation.score(found, resolved.task, seed=recipe.seed),
        "agreement": evaluation.agreement(found, reference, resolved.task, name=name) | {"predictions": kept_reference},
        **speed,
        "energy": energy,
        "mlperf": scenario and scenario.save(target.folder, stem),
        "max_length": resolved.max_length,
        "environment": describe(),
        "seed": recipe.seed,
        "command": command_of(changes, bundle or (target.bundle.path if target.bundle else None)),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    result = cast("Result", values)
    result["file"] = str(save_result(target.folder, stem, result))
    if recipe.require_energy:
        require(energy)
    return result


def command_of(changes: dict[str, Any], bundle: Path | None) -> str:
    """Return the command that evaluates the same again: with --set, which takes whatever a recipe may hold."""
    asked = {key: value for key, value in changes.items() if value is not None and not (bundle and key == "model")}
    sets = [part for key, value in asked.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return shlex.join(["toolchain", "eval", *([str(bundle)] if bundle else []), *sets])


def _measure(
    target: Target, rows: Rows, references: Values, tell: Callable[[str], None]
) -> tuple[Predictions, dict[str, Any], EnergyBlock, ScenarioRun | None]:
    """Run the subject on the rows.

    Returns:
        What it predicts, the speed, memory and roofline keys of a result, its energy, and the scenario that was
        asked for.
    """
    resolved, seed = target.resolved, target.resolved.recipe.seed
    with open_session(resolved.recipe, target.device, log=tell) as session:
        tell(f"opening {target.backend} on {target.device}")
        with open_runtime(target.backend, target.model, **target.choices) as infer:
            logits, speed = evaluation.measure(
                infer,
                target.encode,
                rows.texts,
                seed=seed,
                log=tell,
                device="cpu" if target.remote else target.device,
                recording=resolved.recipe.cuda_graphs,
            )
            slots = speed["tokens"]["batch_slots"]
            session.measure(infer, resolved.encode, rows.sample(LOAD_ROWS, seed=seed).texts, max_slots=slots, log=tell)
            asked = resolved.recipe.scenario is not None
            scenario = (
                run_scenario(resolved.recipe, infer, target.encode, rows.texts, speed, tell=tell) if asked else None
            )
        found = evaluation.predict(references, logits, resolved.task, resolved.source.labels)
        energy = session.block(evaluation.share_correct(found, resolved.task))
    if target.remote:
        speed["peak_memory_mb"] = {"host": None, "device": None}  # the client's says nothing of the server's
    else:
        tell("measuring what this machine can do")
    at = {"backend": target.backend, "device": target.device, "precision": target.precision}
    speed["roofline"] = assess(target.graph, speed, rows=len(rows), **at)
    return found, speed, energy, scenario


def _stem(target: Target) -> str:
    """Return the name of a result's files: what is evaluated, and where."""
    recipe = target.resolved.recipe
    limited = [f"first{recipe.limit}"] if recipe.limit else []
    scenario = [recipe.scenario] if recipe.scenario else []
    scenario += [f"{recipe.target_qps:g}qps"] if recipe.target_qps else []
    parts = [target.resolved.task.name, recipe.split, target.backend, target.device.replace(":", ""), target.variant]
    return "-".join([*parts, *limited, *scenario])


def _rows(target: Target) -> Rows:
    """Return the rows to evaluate, none of which the ranges were made from."""
    recipe = target.resolved.recipe
    rows = load_rows(target.resolved.task, recipe.split, data=recipe.data)
    if recipe.limit:
        rows = rows.take(range(min(recipe.limit, len(rows))))
    if target.bundle:
        _refuse_calibrated(target.bundle, rows)
    return rows


def _refuse_calibrated(bundle: Bundle, rows: Rows) -> None:
    """Refuse to evaluate rows that the ranges were made from.

    Raises:
        InputError: more of them are shared than chance explains.
    """
    if "calibration.json" not in bundle.manifest["artefacts"]:
        return
    about = json.loads(bundle.file("calibration.json").read_text(encoding="utf-8"))
    known = {*about.get("row_sha256", []), *about.get("chosen_sha256", [])}
    if bundle.manifest["recipe"].get("keep"):
        with contextlib.suppress(OSError, ValueError):
            known |= set(json.loads((bundle.path / RESULTS / CHOSEN_ROWS).read_text(encoding="utf-8")))
    shared = len(set(rows.text_digests) & known)
    if shared > max(CHANCE_ROWS, MAX_SHARED_ROWS * len(rows)):
        raise InputError(
            f"{rows.source}: {shared} of these rows were calibrated with. "
            "Evaluate others, or calibrate with others (--calib-data)."
        )
    if shared:
        log.warning("%d of %d rows are also among those calibrated with", shared, len(rows))


def _reference(target: Target, rows: Rows, references: Values) -> tuple[Predictions, str, dict[str, str]] | None:
    """Return FP32 predictions for these rows, whose they are, and where they are kept; None if the subject's are they.

    They are PyTorch's, or without it ONNX Runtime's. Those of an earlier run are taken if model, rows and length
    have the same digests.
    """
    if target.is_reference:
        return None
    resolved = target.resolved
    name, backend, model = find_reference(target)
    digests = target.bundle.manifest["model"]["sha256"] if target.bundle else resolved.source.digests
    key = sha256_json([name, digests, rows.digest, resolved.max_length])
    file = target.folder / f"reference-{key[:16]}.npz"
    found = read_predictions(file)
    if found is None or len(found.logits) != len(rows):
        with open_runtime(backend, model, device="cpu") as infer, bar(len(rows), name, unit="rows") as advance:
            logits = run_texts(infer, resolved.encode, rows.texts, advance=advance).logits
        found = evaluation.predict(references, logits, resolved.task, resolved.source.labels)
        return found, name, save_predictions(file, found)
    return found, name, {"file": file.name, "sha256": sha256_file(file)}


def demo(*, output: Path | None = None, tell: Callable[[str], None] = log.info) -> dict[str, Any]:
    """Run the main job on the built-in model and data: build INT8, evaluate, report."""
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
