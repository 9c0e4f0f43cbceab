"""The steps of a build up to the typed graphs; each is skipped when its inputs are what they were.

export     checkpoint -> model.onnx, checked against PyTorch
cpu        model.onnx -> model.fp32.cpu.onnx, the same for ONNX Runtime on a CPU
half       model.onnx -> model.fp16.onnx
cuda       model.onnx -> model.fp16.cuda.onnx, fused for ONNX Runtime on CUDA
calibrate  model.onnx + rows -> calibration.json, calibration.cache
quantize   model.onnx + ranges -> model.int8.onnx, model.int8.cpu.onnx

A step is a function of a job and a stage: it names its inputs, writes files and returns a JSON record about them.
What makes engines of the graphs is in compile.py.
"""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.bundle.resolved import ResolvedRecipe
from toolchain.bundle.writer import BundleWriter
from toolchain.checkpoint.model import TOKENIZER_FILES
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import MissingSplitError, Text, load_rows
from toolchain.errors import GateError, InputError
from toolchain.records.calibration import CalibrationAbout
from toolchain.runtimes import open_runtime, parity
from toolchain.runtimes.environment import version_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from toolchain.int8.calibrate import Calibration
    from toolchain.int8.quantize import QdqScheme

STEP_VERSIONS = {"export": 2, "half": 1, "calibrate": 3, "quantize": 4, "cpu": 1, "cuda": 1}
"""Raised when a step's code changes what it writes, so that old outputs are not taken for new."""

KEEP_MACS = 0.09
"""Of the encoder's multiply-accumulates, what a build with a gate may leave out of INT8 by itself."""

KEEP_BUDGET = 24
"""Graphs that it may evaluate to find out which."""

PARITY_ROWS = 32
HALF_RTOL = 0.05
"""float16 keeps 11 bits; sound conversions of such encoders differ by 1e-4 to 1e-2 of the largest logit."""


def versions(*packages: str) -> dict[str, str | None]:
    """Return the installed version of each package, None if it is absent."""
    return {package: version_of(package) for package in packages}


def _export(resolved: ResolvedRecipe, made: BundleWriter) -> dict[str, Any]:
    def run(folder: Path) -> dict[str, Any]:
        from toolchain.checkpoint.export import export

        record = export(resolved.source, folder / "model.onnx")
        for pattern in ("config.json", *TOKENIZER_FILES):
            for file in resolved.source.folder.glob(pattern):
                shutil.copyfile(file, folder / file.name)
        found = _parity(resolved, folder / "model.onnx")
        parity.check(found, where=f"{resolved.source.name}: model.onnx", atol=resolved.recipe.atol)
        return {**record, "parity": found.to_json()}

    inputs = {
        "model": resolved.source.digests,
        "atol": resolved.recipe.atol,
        "columns": len(resolved.task.text_columns),
        "tools": versions("torch", "transformers", "onnxscript", "onnx-ir"),
    }
    return made.step("export", {"version": STEP_VERSIONS["export"], **inputs}, run)


def _cpu(resolved: ResolvedRecipe, made: BundleWriter) -> dict[str, Any]:
    def run(folder: Path) -> dict[str, Any]:
        from toolchain import graph
        from toolchain.graph.cpu import for_cpu

        model = graph.load(folder / "model.onnx")
        passes = for_cpu(model)
        graph.save(model, folder / "model.fp32.cpu.onnx")
        found = _parity(resolved, folder / "model.fp32.cpu.onnx")
        parity.check(found, where=f"{resolved.source.name}: model.fp32.cpu.onnx", atol=resolved.recipe.atol)
        return {"passes": passes, "parity": found.to_json()}

    inputs = {"version": STEP_VERSIONS["cpu"], "graph": made.artefacts["model.onnx"], "atol": resolved.recipe.atol}
    return made.step("cpu", inputs, run)


def _half(resolved: ResolvedRecipe, made: BundleWriter) -> dict[str, Any]:
    def run(folder: Path) -> dict[str, Any]:
        from toolchain import graph
        from toolchain.graph.fp16 import to_half

        model = graph.load(folder / "model.onnx")
        nodes = to_half(model)
        graph.save(model, folder / "model.fp16.onnx")
        found = _parity(resolved, folder / "model.fp16.onnx")
        parity.check_relative(found, where=f"{resolved.source.name}: model.fp16.onnx", rtol=HALF_RTOL)
        return {"float16_nodes": nodes, "parity": found.to_json()}

    inputs = {"version": STEP_VERSIONS["half"], "graph": made.artefacts["model.onnx"]}
    return made.step("half", inputs, run)


def _cuda(resolved: ResolvedRecipe, made: BundleWriter) -> dict[str, Any]:
    where = f"{resolved.source.name}: model.fp16.cuda.onnx"

    def run(folder: Path) -> dict[str, Any]:
        from toolchain import graph
        from toolchain.graph.cuda import for_cuda
        from toolchain.graph.fp16 import to_half

        model = graph.load(folder / "model.onnx")
        try:
            passes = for_cuda(model, where=where)
        except InputError as why:  # ONNX Runtime runs model.fp16.onnx there, which is right, if slower
            made.log(f"not made: {why}")
            return {"passes": None, "reason": str(why)}
        # Compared before it is typed: no CPU has the fused operators in float16.
        found = parity.check(_parity(resolved, graph.serialised(model)), where=where, atol=resolved.recipe.atol)
        nodes = to_half(model)
        graph.save(model, folder / "model.fp16.cuda.onnx")
        return {"passes": passes, "float16_nodes": nodes, "parity_in_float32": found.to_json()}

    inputs = {"version": STEP_VERSIONS["cuda"], "graph": made.artefacts["model.onnx"], "atol": resolved.recipe.atol}
    return made.step("cuda", inputs, run)


def _calibrate(resolved: ResolvedRecipe, made: BundleWriter) -> dict[str, Any]:
    from toolchain.int8.calibrate import read_calibration

    recipe = resolved.recipe
    graph_sha256 = made.artefacts["model.onnx"]
    if recipe.calibration and not recipe.gives_cache:
        given = read_calibration(Path(recipe.calibration))
        if given.about.get("graph_sha256") != graph_sha256:
            raise InputError(
                f"{recipe.calibration}: made for another graph. Calibrate this model: toolchain calibrate."
            )
        known = {
            "version": STEP_VERSIONS["calibrate"],
            "ranges": {name: one.to_json() for name, one in given.ranges.items()},
            "smoothing": given.smoothing,
            **given.about,
        }
        return made.step("calibrate", known, lambda folder: _written(folder, given))

    rows = resolved.calibration_rows
    about: CalibrationAbout = {
        "method": recipe.calib_method,
        "smooth": recipe.smooth,
        "samples": len(rows),
        "data_sha256": rows.digest,
        "graph_sha256": graph_sha256,
    }
    if recipe.calib_method == "auto":
        about["max_drop"] = recipe.max_drop
        about["chosen_on"] = {"rows": len(resolved.holdout_rows), "data_sha256": resolved.holdout_rows.digest}
    inputs = {
        "version": STEP_VERSIONS["calibrate"],
        "tokenizer": {name: digest for name, digest in resolved.source.digests.items() if name != "config.json"},
        "max_length": resolved.max_length,
        **about,
    }

    def run(folder: Path) -> dict[str, Any]:
        found = _calibration(resolved, folder / "model.onnx", about)
        return _written(folder, found) | {"tensors": len(found.ranges)}

    return made.step("calibrate", inputs, run)


def _calibration(resolved: ResolvedRecipe, model: Path, about: CalibrationAbout) -> "Calibration":
    """Calibrate a graph by the recipe's method; `about` gains the digests of the rows, and the choice under `auto`."""
    from toolchain import graph
    from toolchain.graph.smooth import exponents, smooth
    from toolchain.int8.calibrate import Calibration, calibrate, channel_amax

    recipe, rows = resolved.recipe, resolved.calibration_rows
    tokens = resolved.encode(rows.texts)
    about["row_sha256"] = sorted(set(rows.text_digests))
    if recipe.calib_method == "auto":
        return _chosen(resolved, lambda: graph.load(model), tokens, about)
    full, smoothing = graph.load(model), {}
    if recipe.smooth is not None:
        smoothing = exponents(full, channel_amax(full, tokens), recipe.smooth)
        smooth(full, smoothing)
    return Calibration(calibrate(full, tokens, method=recipe.calib_method, where=str(model)), smoothing, about)


def _chosen(
    resolved: ResolvedRecipe, load: "Callable[[], ir.Model]", tokens: Tokens, about: CalibrationAbout
) -> "Calibration":
    """Return the calibration that is nearest to FP32; with a gate also the few GEMMs to exclude from INT8."""
    from toolchain.int8.auto import choose, smoothed
    from toolchain.int8.calibrate import Calibration
    from toolchain.int8.holdout import choose_holdout
    from toolchain.int8.mixed_precision import Search

    recipe = resolved.recipe
    holdout = choose_holdout(load, resolved.encode(resolved.holdout_rows.texts), seed=recipe.seed)
    found = choose(load, tokens, holdout, alpha=recipe.smooth)
    about["method"], about["smooth"] = found.best.method, found.best.alpha
    about["trials"] = [trial.to_json() for trial in found.trials]
    about["chosen_sha256"] = sorted(set(resolved.holdout_rows.text_digests))
    if recipe.max_drop is not None and holdout.expected_drop(found.best.distance) > recipe.max_drop:
        search = Search(lambda: smoothed(load, found.smoothing), found.ranges, holdout, KEEP_BUDGET, {})
        kept = search.run(max_drop=recipe.max_drop, most_macs=KEEP_MACS).best
        about["keep"], about["kept"] = list(kept.keep), kept.to_json()
    return Calibration(found.ranges, found.smoothing, about)


def _written(folder: Path, calibration: "Calibration") -> dict[str, Any]:
    """Write calibration.json and calibration.cache; return the step's record, without the digests of the rows."""
    from toolchain.int8.calibrate import write_calibration

    write_calibration(folder, calibration)
    about = dict(calibration.about)
    return {key: value for key, value in about.items() if key not in ("row_sha256", "chosen_sha256")}


def _quantize(resolved: ResolvedRecipe, made: BundleWriter) -> dict[str, Any]:
    def run(folder: Path) -> dict[str, Any]:
        from toolchain import graph
        from toolchain.graph.cpu import for_cpu
        from toolchain.graph.fp16 import to_half
        from toolchain.graph.smooth import smooth
        from toolchain.int8.calibrate import read_calibration
        from toolchain.int8.coverage import integer_coverage
        from toolchain.int8.quantize import CPU, TENSORRT, quantize

        calibration = read_calibration(folder / "calibration.json")
        views = {"model.int8.onnx": TENSORRT, "model.int8.cpu.onnx": CPU}
        record = {}
        for file, scheme in views.items():
            model = graph.load(folder / "model.onnx")
            smoothing = {"smoothing_muls": smooth(model, calibration.smoothing)}
            keep = _kept(model, resolved.recipe.keep, calibration.about.get("keep", []), scheme)
            record[file] = quantize(model, calibration.ranges, scheme, keep=keep) | smoothing
            if scheme is TENSORRT:
                record[file]["float16_nodes"] = to_half(model)
            else:
                record[file]["passes"] = for_cpu(model)
            graph.save(model, folder / file)
        found = _parity(resolved, folder / "model.int8.cpu.onnx")
        if not found.finite:
            raise GateError(
                f"{resolved.source.name}: model.int8.cpu.onnx gives NaN or infinity. Calibrate with more rows."
            )
        products = {file: integer_coverage(folder / file) for file in views}
        return {"views": record, "products_on_cpu": products, "parity": found.to_json()}

    inputs = {
        "version": STEP_VERSIONS["quantize"],
        "graph": made.artefacts["model.onnx"],
        "ranges": made.artefacts["calibration.json"],
        "keep": resolved.recipe.keep,
        "tools": versions("onnx-ir", "onnxruntime", "onnxruntime-gpu"),
    }
    return made.step("quantize", inputs, run)


def _kept(model: "ir.Model", named: str | None, chosen: list[str], scheme: "QdqScheme") -> list[str]:
    """Return the products that stay in float.

    What a person names, if only nothing, replaces what the calibration has chosen. It chose by the error of the graph
    for TensorRT, most of which attention makes; on a CPU attention is in float, where it is faster too.
    """
    from toolchain.graph.gemms import attention_gemms, find_gemms
    from toolchain.int8.quantize import TENSORRT

    if scheme is TENSORRT:
        return find_gemms(model, ",".join(chosen) if named is None else named)
    attention = [str(node.name) for node in attention_gemms(model)]
    return list(dict.fromkeys([*attention, *find_gemms(model, named)]))


def _parity(resolved: ResolvedRecipe, model: Path | bytes) -> parity.Parity:
    """Compare a graph with the checkpoint in PyTorch, on the task's own rows where there are any."""
    tokens = resolved.encode(parity_texts(resolved))
    with (
        open_runtime("torch", resolved.source, device="cpu") as reference,
        open_runtime("ort", model, device="cpu") as candidate,
    ):
        return parity.compare(reference, candidate, tokens)


def parity_texts(resolved: ResolvedRecipe) -> list[Text]:
    """Return rows of the task's own train split, or built-in sentences where it has none at hand."""
    if resolved.recipe.data is not None or resolved.task.folder is not None:
        with contextlib.suppress(MissingSplitError):  # a folder needs only the splits that a command uses
            return load_rows(resolved.task, "train", data=resolved.recipe.data).texts[:PARITY_ROWS]
    return parity.probe_texts(len(resolved.task.text_columns))


STEPS: dict[str, Callable[[ResolvedRecipe, BundleWriter], dict[str, Any]]] = {
    "export": _export,
    "cpu": _cpu,
    "half": _half,
    "cuda": _cuda,
    "calibrate": _calibrate,
    "quantize": _quantize,
}
