"""Whole paths in order: evaluate a bundle, and the demo that goes from checkpoint to report."""

import contextlib
import json
import logging
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolchain.bundle import RESULTS, Bundle
from toolchain.bundle.build import build
from toolchain.data.labels import read_labels
from toolchain.data.metrics import Values
from toolchain.data.rows import Rows, load_rows
from toolchain.energy.component import Block
from toolchain.energy.evaluation import LOAD_ROWS, open_session, require
from toolchain.errors import InputError
from toolchain.evaluation import measure as evaluation
from toolchain.evaluation.compare import Predictions
from toolchain.evaluation.results import SCHEMA, Result, read_predictions, save_predictions, save_result
from toolchain.evaluation.target import CHOSEN_ROWS, Subject, find_subject
from toolchain.files import sha256_file, sha256_json, write_text
from toolchain.mlperf.ask import require_loadgen
from toolchain.mlperf.scenario import Scenario, run_scenario
from toolchain.progress import bar
from toolchain.recipe import Recipe
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
    subject = find_subject(changes, bundle)
    job, recipe = subject.job, subject.job.recipe
    if recipe.scenario:
        require_loadgen()
    rows = _rows(subject)
    references = read_labels(rows, job.task, job.source.labels)
    found, speed, energy, scenario = _measure(subject, rows, references, tell)
    tell("comparing with FP32")
    stem = _stem(subject)
    kept = save_predictions(subject.folder / f"{stem}.npz", found)
    reference, name, kept_reference = _reference(subject, rows, references) or (found, "torch-fp32", kept)
    result: Result = {
        "schema": SCHEMA,
        "task": job.task.name,
        "split": recipe.split,
        "n": len(rows),
        "data_sha256": rows.digest,
        "predictions": kept,
        "model": job.source.name,
        "backend": subject.backend,
        "device": subject.device,
        "precision": subject.precision,
        "artefact": subject.artefact,
        "variant": subject.variant,
        "primary": job.task.primary,
        **evaluation.score(found, job.task, seed=recipe.seed),
        "agreement": evaluation.agreement(found, reference, job.task, name=name) | {"predictions": kept_reference},
        **speed,
        "energy": energy,
        "mlperf": scenario and scenario.keep(subject.folder, stem),
        "max_length": job.max_length,
        "environment": describe(),
        "seed": recipe.seed,
        "command": command_of(changes, bundle or (subject.bundle.path if subject.bundle else None)),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    result["file"] = str(save_result(subject.folder, stem, result))
    if recipe.require_energy:
        require(energy)
    return result


def command_of(changes: dict[str, Any], bundle: Path | None) -> str:
    """Return the command that evaluates the same again: with --set, which takes whatever a recipe may hold."""
    asked = {key: value for key, value in changes.items() if value is not None and not (bundle and key == "model")}
    sets = [part for key, value in asked.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return shlex.join(["toolchain", "eval", *([str(bundle)] if bundle else []), *sets])


def _measure(
    subject: Subject, rows: Rows, references: Values, tell: Callable[[str], None]
) -> tuple[Predictions, dict[str, Any], Block, Scenario | None]:
    """Run the subject on the rows.

    Returns:
        What it predicts, the speed, memory and roofline keys of a result, its energy, and the scenario that was
        asked for.
    """
    job, seed = subject.job, subject.job.recipe.seed
    with open_session(job.recipe, subject.device, tell=tell) as session:
        tell(f"opening {subject.backend} on {subject.device}")
        with open_runtime(subject.backend, subject.model, **subject.choices) as infer:
            logits, speed = evaluation.measure(
                infer,
                subject.encode,
                rows.texts,
                seed=seed,
                log=tell,
                device="cpu" if subject.remote else subject.device,
                recording=job.recipe.cuda_graphs,
            )
            slots = speed["tokens"]["batch_slots"]
            session.measure(infer, job.encode, rows.sample(LOAD_ROWS, seed=seed).texts, max_slots=slots, tell=tell)
            asked = job.recipe.scenario is not None
            scenario = run_scenario(job.recipe, infer, subject.encode, rows.texts, speed, tell=tell) if asked else None
        found = evaluation.predict(references, logits, job.task, job.source.labels)
        energy = session.block(evaluation.share_correct(found, job.task))
    if subject.remote:
        speed["peak_memory_mb"] = {"host": None, "device": None}  # the client's says nothing of the server's
    else:
        tell("measuring what this machine can do")
    at = {"backend": subject.backend, "device": subject.device, "precision": subject.precision}
    speed["roofline"] = assess(subject.graph, speed, rows=len(rows), **at)
    return found, speed, energy, scenario


def _stem(subject: Subject) -> str:
    """Return the name of a result's files: what is evaluated, and where."""
    recipe = subject.job.recipe
    limited = [f"first{recipe.limit}"] if recipe.limit else []
    scenario = [recipe.scenario] if recipe.scenario else []
    scenario += [f"{recipe.target_qps:g}qps"] if recipe.target_qps else []
    parts = [subject.job.task.name, recipe.split, subject.backend, subject.device.replace(":", ""), subject.variant]
    return "-".join([*parts, *limited, *scenario])


def _rows(subject: Subject) -> Rows:
    """Return the rows to evaluate, none of which the ranges were made from."""
    recipe = subject.job.recipe
    rows = load_rows(subject.job.task, recipe.split, data=recipe.data)
    if recipe.limit:
        rows = rows.take(range(min(recipe.limit, len(rows))))
    if subject.bundle:
        _refuse_calibrated(subject.bundle, rows)
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


def _reference(subject: Subject, rows: Rows, references: Values) -> tuple[Predictions, str, dict[str, str]] | None:
    """Return FP32 predictions for these rows, whose they are, and where they are kept; None if the subject's are they.

    They are PyTorch's, or without it ONNX Runtime's. Those of an earlier run are taken if model, rows and length
    have the same digests.
    """
    if subject.is_reference:
        return None
    job = subject.job
    name, backend, model = subject.reference
    key = sha256_json([name, subject.model_digests, rows.digest, job.max_length])
    file = subject.folder / f"reference-{key[:16]}.npz"
    found = read_predictions(file)
    if found is None or len(found.logits) != len(rows):
        with open_runtime(backend, model, device="cpu") as infer, bar(len(rows), name, unit="rows") as advance:
            logits = run_texts(infer, job.encode, rows.texts, advance=advance).logits
        found = evaluation.predict(references, logits, job.task, job.source.labels)
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
