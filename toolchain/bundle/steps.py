"""The steps of a build that make ONNX graphs. The step that builds an engine from them is in bundle/engine_step.py.

export     checkpoint -> model.onnx, compared with PyTorch
cpu        model.onnx -> model.fp32.cpu.onnx, for ONNX Runtime on a CPU
half       model.onnx -> model.fp16.onnx
cuda       model.onnx -> model.fp16.cuda.onnx, fused for ONNX Runtime on CUDA
calibrate  model.onnx and rows -> calibration.json, calibration.cache
quantize   model.onnx and ranges, or healed weights -> model.int8.onnx, model.int8.cpu.onnx; or model.fp8.onnx

A step is a function of a resolved recipe and a bundle writer. It gives the writer its inputs (all that its files depend
on) and a function that writes the files and returns a JSON record. The writer skips a step whose inputs have not
changed. To add a step: write the function here and add its line to STEPS.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from toolchain.base.files import sha256_file, sha256_json
from toolchain.bundle.checkpoint_parity import compare_with_checkpoint, parity_texts
from toolchain.bundle.healed import carry_healed, healed_of
from toolchain.bundle.learnt import OF_CHECKPOINT, OF_SHRINK, read_learnt, write_learnt
from toolchain.bundle.reuse import take_graph
from toolchain.checkpoint.stored_tokenizer import store, tokenizer_files
from toolchain.data.probes import long_text
from toolchain.errors import GateError, InputError
from toolchain.recipe.tables import QUANTIZED
from toolchain.records.bundle import (
    CalibrateRecord,
    CpuRecord,
    CudaRecord,
    ExportRecord,
    HalfRecord,
    QuantizedView,
    QuantizeRecord,
)
from toolchain.records.calibration import CalibrationAbout
from toolchain.records.quantization import SearchRecord
from toolchain.runtimes import parity
from toolchain.runtimes.environment import version_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from toolchain.bundle.resolved_recipe import ResolvedRecipe
    from toolchain.bundle.writer import BundleWriter, Record
    from toolchain.checkpoint.tokenize import Tokens
    from toolchain.int8.calibrate import Calibration
    from toolchain.int8.mixed_precision import Search

# Largest fraction of the encoder's multiply-accumulates that a build with a gate excludes from INT8 (decision 007).
KEEP_MACS = 0.09

# A build with a gate evaluates at most this many graphs on hold-out rows to choose the GEMMs to exclude from INT8.
KEEP_BUDGET = 24

# Largest difference allowed between logits in float16 and float32, as a fraction of the largest logit. After correct
# conversions they differ by 1e-4 to 1e-2, because float16 has only 11 significant bits.
HALF_RTOL = 0.05


@dataclass(frozen=True)
class Step:
    """A step of a build: the function that runs it, its version, and the precisions for which it is needed."""

    run: Callable[[ResolvedRecipe, BundleWriter], Mapping[str, Any]]
    # Raise it when the step's code changes the files that it writes, so that this step runs again for older bundles.
    version: int
    precisions: tuple[str, ...]


def versions(*packages: str) -> dict[str, str | None]:
    """Return package name -> installed version; None as the version if the package is not installed."""
    return {package: version_of(package) for package in packages}


def _export(resolved: ResolvedRecipe, made: BundleWriter) -> ExportRecord:
    learnt_file = resolved.source.folder / OF_CHECKPOINT

    def run(folder: Path) -> ExportRecord:
        from toolchain.checkpoint.export import export

        taken = take_graph(resolved.recipe, folder, inputs, log=made.log)
        record = taken or export(resolved.source, folder / "model.onnx")
        for name in ("config.json", *tokenizer_files(resolved.tokenizer, resolved.source.folder)):
            shutil.copyfile(resolved.source.folder / name, folder / name)
        if learnt := read_learnt(learnt_file):
            write_learnt(folder / OF_SHRINK, learnt)
        stored = store(resolved.tokenizer, folder) if resolved.encoder.rust is not None else None
        try:
            found = _check_export(resolved, folder / "model.onnx")
        except (GateError, InputError) as error:
            if taken is None:
                raise
            raise InputError(
                f"--reuse {resolved.recipe.reuse}: the bundle says that its graph was exported from "
                f"{resolved.source.name}, but their logits differ. Leave --reuse out."
            ) from error
        return {**record, "parity": found.to_json(), "tokenizer": stored}

    inputs = {
        "version": STEPS["export"].version,
        "model": resolved.source.digests,
        "atol": resolved.recipe.atol,
        "columns": resolved.head.texts_per_row,
        "pooling": resolved.source.pooling and asdict(resolved.source.pooling),
        "max_length": resolved.max_length,
        "tools": versions("torch", "transformers", "onnxscript", "onnx-ir"),
        **({"learnt": sha256_file(learnt_file)} if learnt_file.exists() else {}),
    }
    return made.step("export", inputs, run)


def _check_export(resolved: ResolvedRecipe, graph: Path) -> parity.Parity:
    """Compare an exported graph with the checkpoint, and return the differences if they are within --atol.

    Raises:
        GateError: a logit differs by more than --atol.
        InputError: see `compare_with_checkpoint`.
    """
    # A row of the maximum length uses positions and parts of attention that short rows do not use.
    longest = long_text(resolved.head.texts_per_row, resolved.max_length)
    found = compare_with_checkpoint(resolved, graph, longest)
    return parity.check(found, where=f"{resolved.source.name}: model.onnx", atol=resolved.recipe.atol)


def _convert(made: BundleWriter, name: str, file: str, change: Callable[[ir.Model], Record], **inputs: Any) -> Record:
    """Run the step `name`, which makes the graph `file` from model.onnx; return the step's record.

    `change` converts the graph in place, checks it and returns the record. If the record has a `reason`, the graph
    cannot be made, and no file is written. `inputs` are what the file depends on besides model.onnx.
    """

    def run(folder: Path) -> Record:
        from toolchain import graph

        model = graph.load(folder / "model.onnx")
        record = change(model)
        if "reason" not in record:
            graph.save(model, folder / file)
        return record

    given = {"version": STEPS[name].version, "graph": made.artefacts["model.onnx"], **inputs}
    return made.step(name, given, run)


def _cpu(resolved: ResolvedRecipe, made: BundleWriter) -> CpuRecord:
    file, atol = "model.fp32.cpu.onnx", resolved.recipe.atol

    def change(model: ir.Model) -> CpuRecord:
        from toolchain.graph.cpu import for_cpu

        passes = for_cpu(model)
        where = f"{resolved.source.name}: {file}"
        found = parity.check(compare_with_checkpoint(resolved, model), where=where, atol=atol)
        return {"passes": passes, "parity": found.to_json()}

    return _convert(made, "cpu", file, change, atol=atol)


def _half(resolved: ResolvedRecipe, made: BundleWriter) -> HalfRecord:
    file, texts = "model.fp16.onnx", parity_texts(resolved)

    def change(model: ir.Model) -> HalfRecord:
        from toolchain.bundle.typed import check_halves, to_half_within_range
        from toolchain.graph.first_token import first_token

        passes = {"first_token": first_token(model)}
        types = to_half_within_range(resolved, model, texts)
        found, where = compare_with_checkpoint(resolved, model, halves=True), f"{resolved.source.name}: {file}"
        check_halves(model, resolved.encode(texts), found, where=where, rtol=HALF_RTOL)
        return {"passes": passes, **types, "parity": found.to_json()}

    return _convert(made, "half", file, change, rows=sha256_json(texts), **resolved.tokenization)


def _cuda(resolved: ResolvedRecipe, made: BundleWriter) -> CudaRecord:
    file, atol, texts = "model.fp16.cuda.onnx", resolved.recipe.atol, parity_texts(resolved)

    def change(model: ir.Model) -> CudaRecord:
        from toolchain.bundle.typed import check_halves, to_half_within_range
        from toolchain.graph.ort_cuda import for_cuda

        where = f"{resolved.source.name}: {file}"
        try:
            passes = for_cuda(model, where=where)
        except InputError as why:  # ONNX Runtime on CUDA then runs model.fp16.onnx, which is correct but slower
            made.log(f"{file} was not made: {why}")
            return {"passes": None, "reason": str(why)}
        found = parity.check(compare_with_checkpoint(resolved, model), where=where, atol=atol)
        types = to_half_within_range(resolved, model, texts)
        # On the CPU, a fused operator computes in float32; only its inputs and outputs are rounded to float16.
        halves = compare_with_checkpoint(resolved, model, halves=True)
        check_halves(model, resolved.encode(texts), halves, where=where, rtol=HALF_RTOL)
        record: CudaRecord = {"passes": passes, "parity_in_float32": found.to_json()}
        return {**record, "parity": halves.to_json(), **types}

    return _convert(made, "cuda", file, change, atol=atol, rows=sha256_json(texts), **resolved.tokenization)


def _calibrate(resolved: ResolvedRecipe, made: BundleWriter) -> CalibrateRecord:
    from toolchain.int8.calibrate import read_calibration

    recipe = resolved.recipe
    graph_sha256 = made.artefacts["model.onnx"]
    if recipe.calibration and not recipe.gives_cache:
        given = read_calibration(Path(recipe.calibration))
        if given.about.get("graph_sha256") != graph_sha256:
            raise InputError(
                f"{recipe.calibration}: these ranges were calibrated on another graph. "
                "Calibrate this model with: toolchain calibrate."
            )
        known = {
            "version": STEPS["calibrate"].version,
            "ranges": {name: one.to_json() for name, one in given.ranges.items()},
            "smoothing": given.smoothing,
            **given.about,
        }
        return made.step("calibrate", known, lambda folder: _written(folder, given))

    rows = resolved.calibration_rows
    about: CalibrationAbout = {
        "method": recipe.range_method,
        "smooth": recipe.smooth,
        "samples": len(rows),
        "data_sha256": rows.digest,
        "graph_sha256": graph_sha256,
    }
    if resolved.overlap:
        about["overlap"] = resolved.overlap
    if recipe.range_method == "auto":
        about["max_drop"] = recipe.max_drop
        about["chosen_on"] = {"rows": len(resolved.holdout_rows), "data_sha256": resolved.holdout_rows.digest}
    inputs = {
        "version": STEPS["calibrate"].version,
        **resolved.tokenization,
        **about,
        **(_of_choice(resolved) if recipe.range_method == "auto" else {}),
    }

    def run(folder: Path) -> CalibrateRecord:
        found = _calibration(resolved, folder / "model.onnx", about)
        record = _written(folder, found)
        record["tensors"] = len(found.ranges)
        return record

    return made.step("calibrate", inputs, run)


def _of_choice(resolved: ResolvedRecipe) -> dict[str, Any]:  # JSON, part of a step's inputs
    """Return what else the choice of `--calib-method auto` depends on, apart from rows: precision, task and seed."""
    return {**_other_precision(resolved), "task": resolved.task.to_json(), "seed": resolved.recipe.seed}


def _other_precision(resolved: ResolvedRecipe) -> dict[str, str]:
    """Return the precision as an input of a step. For INT8, return nothing.

    The digests in earlier INT8 bundles were computed without the precision, and should stay valid.
    """
    return {} if resolved.precision == "int8" else {"precision": resolved.precision}


def _calibration(resolved: ResolvedRecipe, model: Path, about: CalibrationAbout) -> Calibration:
    """Calibrate a graph by the recipe's range method, and return its ranges and smoothing.

    The digests of the calibration rows are added to `about`, and under `auto` the method that was chosen.
    """
    from toolchain import graph
    from toolchain.graph.smooth import exponents, smooth
    from toolchain.int8.calibrate import Calibration, calibrate, channel_amax

    recipe, rows = resolved.recipe, resolved.calibration_rows
    with rows.placed():
        tokens = resolved.encode(rows.texts)
    about["row_sha256"] = sorted(set(rows.text_digests))
    if recipe.range_method == "auto":
        return _chosen(resolved, graph.load(model), tokens, about)
    full, smoothing = graph.load(model), {}
    if recipe.smooth is not None:
        smoothing = exponents(full, channel_amax(full, tokens), recipe.smooth)
        smooth(full, smoothing)
    return Calibration(calibrate(full, tokens, method=recipe.range_method, where=str(model)), smoothing, about)


def _chosen(resolved: ResolvedRecipe, model: ir.Model, tokens: Tokens, about: CalibrationAbout) -> Calibration:
    """Try several calibrations, and return the one whose logits on hold-out rows are nearest to FP32's.

    The choice is added to `about`. In INT8 and with --max-drop, so are the GEMMs to exclude from quantization and
    whether residual additions may read INT8.
    """
    from toolchain.int8.auto import choose, smoothed
    from toolchain.int8.calibrate import Calibration
    from toolchain.int8.holdout import choose_holdout
    from toolchain.int8.mixed_precision import KEPT, Search
    from toolchain.int8.quantize import typed_scheme

    recipe = resolved.recipe
    with resolved.holdout_rows.placed():
        held = resolved.encode(resolved.holdout_rows.texts)
    holdout = choose_holdout(model, held, head=resolved.head, seed=recipe.seed)
    found = choose(model, tokens, holdout, scheme=typed_scheme(resolved.precision), alpha=recipe.smooth)
    about["method"], about["smooth"] = found.best.method, found.best.alpha
    about["trials"] = [trial.to_json() for trial in found.trials]
    about["chosen_sha256"] = sorted(set(resolved.holdout_rows.text_digests))
    if recipe.max_drop is not None and resolved.precision == "int8":
        known: SearchRecord = {"evaluations": {KEPT: found.best.distance.to_json()}}
        search = Search(smoothed(model, found.smoothing), found.ranges, holdout, KEEP_BUDGET, known)
        _choose_within(recipe.max_drop, holdout.expected_drop(found.best.distance), search, about)
    return Calibration(found.ranges, found.smoothing, about)


def _choose_within(max_drop: float, expected: float, search: Search, about: CalibrationAbout) -> None:
    """Search for a quantization whose expected drop is at most `max_drop` points, and add it to `about`.

    If the drop `expected` without a search is larger, GEMMs to exclude are searched for. Then residual additions are
    tried in INT8.
    """
    if expected > max_drop:
        result = search.run(max_drop=max_drop, most_macs=KEEP_MACS)
        about["keep"], about["kept"] = list(result.best.keep), result.best.to_json()
        residual = result.residual
    else:
        residual = search.residual((), max_drop=max_drop)
    if residual is not None:
        about["residual"], about["residual_drop_points"] = "int8", residual.expected_drop_points


def _written(folder: Path, calibration: Calibration) -> CalibrateRecord:
    """Write calibration.json and calibration.cache; return the step's record, without the digests of rows."""
    from toolchain.int8.calibrate import write_calibration

    write_calibration(folder, calibration)
    kept = {key: value for key, value in calibration.about.items() if key not in ("row_sha256", "chosen_sha256")}
    return cast("CalibrateRecord", kept)


def _quantize(resolved: ResolvedRecipe, made: BundleWriter) -> QuantizeRecord:
    recipe, texts = resolved.recipe, parity_texts(resolved)
    healed = carry_healed(made) if resolved.precision == "int8" else None  # weights are healed for INT8 only

    def run(folder: Path) -> QuantizeRecord:
        from toolchain import graph
        from toolchain.bundle.quantized import quantized_graph
        from toolchain.bundle.typed import check_quantized, range_texts, to_half_within_range
        from toolchain.graph.cpu import for_cpu
        from toolchain.graph.embedding import quantize_embedding
        from toolchain.int8.coverage import integer_coverage
        from toolchain.int8.quantize import SCHEMES

        schemes = SCHEMES[resolved.precision]
        views: dict[str, QuantizedView] = {}
        for file, scheme in schemes.items():
            weights = healed_of(folder, made.artefacts, made.steps, file)
            model, view = quantized_graph(folder, scheme, keep=recipe.keep, residual=recipe.residual, healed=weights)
            if scheme.for_tensorrt:
                types = to_half_within_range(resolved, model, range_texts(resolved, texts))
                view = {**view, **types}
            else:
                view["passes"] = {**for_cpu(model), "quantize_embedding": quantize_embedding(model)}
            views[file] = view
            graph.save(model, folder / file)
        found: dict[str, parity.Parity] = {}
        for file, scheme in schemes.items():
            typed = scheme.for_tensorrt
            compared = compare_with_checkpoint(resolved, folder / file, halves=typed)
            found[file] = check_quantized(resolved, folder / file, compared, texts, typed=typed)
        covered = {file: integer_coverage(folder / file) for file in schemes}
        *halves, own = (one.to_json() for one in found.values())
        record: QuantizeRecord = {"views": views, "products_on_cpu": covered, "parity": own}
        return {**record, "parity_in_halves": halves[0]} if halves else record

    inputs = {
        "version": STEPS["quantize"].version,
        "graph": made.artefacts["model.onnx"],
        "ranges": made.artefacts["calibration.json"],
        "keep": recipe.keep,
        "residual": recipe.residual,
        "rows": sha256_json(texts),
        **resolved.tokenization,
        "tools": versions("onnx-ir", "onnxruntime", "onnxruntime-gpu"),
        **({"healed": healed} if healed else {}),
        **_other_precision(resolved),
    }
    return made.step("quantize", inputs, run)


# The steps in the order in which they run.
STEPS: dict[str, Step] = {
    "export": Step(_export, version=4, precisions=("fp32", "fp16", *QUANTIZED)),
    "cpu": Step(_cpu, version=1, precisions=("fp32",)),
    "half": Step(_half, version=4, precisions=("fp16",)),
    "cuda": Step(_cuda, version=5, precisions=("fp16",)),
    "calibrate": Step(_calibrate, version=4, precisions=tuple(QUANTIZED)),
    "quantize": Step(_quantize, version=8, precisions=tuple(QUANTIZED)),
}
