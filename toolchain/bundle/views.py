"""Views: graphs of a bundle for one release of TensorRT, which a build makes when it is asked for them.

rtx   model.int8.onnx for TensorRT-RTX: all weights have one scale (graph/common_scale.py). In FP16 it takes
      model.fp16.onnx itself.
trt8  all precisions for TensorRT 8.6 (graph/trt8.py): in float32, because its builder chooses the types.

A view is made from the files of the bundle alone, and compared with the graph that it is a form of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from toolchain import graph
from toolchain.bundle import Bundle
from toolchain.bundle.quantized import quantized_graph
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.bundle.steps import versions
from toolchain.bundle.writer import BundleWriter
from toolchain.data.probes import probe_texts
from toolchain.errors import GateError, UsageError
from toolchain.graph.common_scale import UNSCALED, common_scale
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import to_half
from toolchain.graph.halves import file_has_halves, has_halves
from toolchain.graph.trt8 import for_trt8
from toolchain.int8.quantize import TENSORRT
from toolchain.records.bundle import QuantizeRecord, StepRecord, ViewRecord
from toolchain.runtimes import open_runtime, parity

# Pass -> number of places that it changed.
Passes = dict[str, int]


@dataclass(frozen=True)
class View:
    """One file: the precision and the graph that it belongs to, and how it is made."""

    name: str
    precision: str
    # The graph whose logits it must have.
    reference: str
    # Largest root mean square difference of the logits, as a share of the largest logit. In INT8 an activation at the
    # middle of two levels may round to either, so single logits differ by more (as in `toolchain verify`).
    rtol: float
    # Changes the float32 graph, which is quantized in INT8; takes the names of tensors that float16 does not hold.
    change: Callable[[ir.Model, list[str]], Passes]
    # Raise it when the code changes the file.
    version: int


def make_view(resolved: ResolvedRecipe, made: BundleWriter, file: str) -> ViewRecord:
    """Make one file of VIEWS, or carry it over; return its record.

    Raises:
        GateError: its logits are not those of its reference.
    """
    view, recipe = VIEWS[file], resolved.recipe

    def run(folder: Path) -> ViewRecord:
        beyond = beyond_float16(made.steps)
        model, passes = _made(folder, file, beyond, keep=recipe.keep, residual=recipe.residual)
        found = _compared(resolved, folder / view.reference, model)
        if not found.finite or found.rms_logit_difference > view.rtol * max(1.0, found.largest_logit):
            raise GateError(
                f"{file}: logits differ from those of {view.reference} by {found.rms_logit_difference:.2g} (root "
                f"mean square), and the largest is {found.largest_logit:.2g}. Report the model's architecture."
            )
        graph.save(model, folder / file)
        return {"passes": passes, "reference": view.reference, "difference": found.to_json()}

    inputs = {
        "version": view.version,
        "graphs": {name: made.artefacts.get(name) for name in ("model.onnx", "calibration.json", view.reference)},
        "keep": recipe.keep,
        "residual": recipe.residual,
        "tools": versions("onnx-ir"),
    }
    return made.step(view.name, inputs, run)


def view_files(precision: str, names: str | None) -> list[str]:
    """Return the files that the views `names`, such as `rtx,trt8`, have in a precision.

    Raises:
        UsageError: there is no such view.
    """
    asked = [name.strip() for name in names.split(",")] if names else []
    known = list(dict.fromkeys(view.name for view in VIEWS.values()))
    for name in asked:
        if name not in known:
            raise UsageError(f"--views {name}: unknown. Choose from {', '.join(known)}.")
    return [file for file, view in VIEWS.items() if view.precision == precision and view.name in asked]


def open_graph(bundle: Bundle, file: str) -> ir.Model:
    """Return a graph of a bundle; a view that the bundle lacks is made in memory.

    Raises:
        InputError: the bundle has neither the file nor what it is made from.
    """
    if file in bundle.manifest["artefacts"] or file not in VIEWS:
        return graph.load(bundle.file(file))
    for name in ("model.onnx", VIEWS[file].reference):
        bundle.file(name)
    recipe = bundle.manifest["recipe"]
    beyond = beyond_float16(bundle.manifest["steps"])
    return _made(bundle.path, file, beyond, keep=recipe.get("keep"), residual=recipe.get("residual"))[0]


def beyond_float16(steps: dict[str, StepRecord]) -> list[str]:
    """Return the names of the tensors that model.int8.onnx keeps in float32, and those of their GEMMs' raw outputs."""
    record: QuantizeRecord | None = steps["quantize"]["record"] if "quantize" in steps else None
    beyond = record["views"]["model.int8.onnx"].get("beyond_float16", []) if record else []
    return [name for one in beyond for name in (one["tensor"], f"{one['tensor']}{UNSCALED}")]


def _made(
    folder: Path, file: str, beyond: list[str], *, keep: str | None, residual: str | None
) -> tuple[ir.Model, Passes]:
    view, passes = VIEWS[file], Passes()
    if view.precision == "int8":
        model, quantized = quantized_graph(folder, TENSORRT, keep=keep, residual=residual)
        passes |= quantized["passes"]
    else:
        model = graph.load(folder / "model.onnx")
        passes["first_token"] = first_token(model)
    return model, passes | view.change(model, beyond)


def _compared(resolved: ResolvedRecipe, reference: Path, model: ir.Model) -> parity.Parity:
    """Compare with built-in sentences, because the rows of the task need not be at hand."""
    tokens = resolved.encode(probe_texts(len(resolved.task.text_columns)))
    with (
        open_runtime("ort", reference, device="cpu", halves=file_has_halves(reference)) as expected,
        open_runtime("ort", graph.serialised(model), device="cpu", halves=has_halves(model)) as found,
    ):
        return parity.compare(expected, found, tokens, decide=resolved.head.decide, longest=resolved.max_length)


def _for_rtx(model: ir.Model, beyond: list[str]) -> Passes:
    return {"common_scale": common_scale(model), "float16": to_half(model, beyond)}


def _for_trt8(model: ir.Model, _beyond: list[str]) -> Passes:
    return for_trt8(model)  # its builder chooses the types


VIEWS: dict[str, View] = {
    "model.int8.rtx.onnx": View("rtx", "int8", "model.int8.onnx", rtol=0.15, change=_for_rtx, version=3),
    "model.fp32.trt8.onnx": View("trt8", "fp32", "model.onnx", rtol=1e-4, change=_for_trt8, version=1),
    "model.fp16.trt8.onnx": View("trt8", "fp16", "model.onnx", rtol=1e-3, change=_for_trt8, version=2),
    "model.int8.trt8.onnx": View("trt8", "int8", "model.int8.onnx", rtol=0.15, change=_for_trt8, version=2),
}
