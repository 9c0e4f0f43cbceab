"""Views: variants of a bundle's graphs for one release of TensorRT, which a build makes only if they are asked for.

rtx   model.int8.onnx for TensorRT-RTX, with one scale for all weights (graph/common_scale.py). There is no view for
      FP16, because TensorRT-RTX takes model.fp16.onnx as it is.
trt8  graphs for TensorRT 8.6 in all precisions (graph/trt8.py). They are float32, because its builder chooses the types
      of nodes. The record names the tensors with values too large for float16. The nodes around them are forced to
      float32 when an engine is built.

A view is made from the files of the bundle, and its logits are compared with those of its reference, the graph that it
is a variant of. The largest values of its tensors are measured on the same rows as for the reference, or on built-in
sentences if these rows are not on this machine.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from toolchain import graph
from toolchain.bundle import Bundle, typed_view
from toolchain.bundle.checkpoint_parity import parity_texts
from toolchain.bundle.healed import FILE, OF_TENSORRT, healed_of
from toolchain.bundle.quantized import quantized_graph
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.bundle.steps import HALF_RTOL, versions
from toolchain.bundle.typed import range_texts
from toolchain.bundle.writer import BundleWriter
from toolchain.data.probes import probe_texts
from toolchain.data.rows import Text
from toolchain.errors import GateError, ToolchainError, UsageError
from toolchain.graph.common_scale import UNSCALED, common_scale
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import to_half
from toolchain.graph.halves import has_halves
from toolchain.graph.trt8 import for_trt8
from toolchain.int8.quantize import TENSORRT
from toolchain.records.bundle import Float16Record, StepRecord, ViewRecord
from toolchain.runtimes import open_runtime, parity
from toolchain.runtimes.half_range import fault_in_halves, measure_range

log = logging.getLogger(__name__)

# Name of a graph pass -> number of changes that it made.
Passes = dict[str, int]


@dataclass(frozen=True)
class View:
    """A variant of a graph for one TensorRT release: its file, step (`name`), precision, reference and conversion."""

    file: str
    name: str
    precision: str
    # File of the graph with which the view's logits are compared.
    reference: str
    # Largest root mean square difference allowed between the logits of view and reference, as a fraction of the largest
    # logit. Single logits may differ by more: in INT8, an activation midway between two levels may round to either.
    rtol: float
    # Converts the float32 graph (in INT8: with Q/DQ nodes) in place.
    change: Callable[[ir.Model], Passes]
    # Whether the file is a typed graph. If not, it is in float32, and the builder of its release chooses the types.
    typed: bool
    # Raise it when a change of the code changes the file.
    version: int


def make_view(resolved: ResolvedRecipe, made: BundleWriter, file: str) -> ViewRecord:
    """Make the view `file`, one of VIEWS, or copy it from the old version if it is up to date; return its record.

    Raises:
        GateError: its logits differ from those of its reference, or its values are too large for float16.
    """
    view, recipe = VIEWS[file], resolved.recipe

    def run(folder: Path) -> ViewRecord:
        base, passes = _made(folder, file, made.artefacts, made.steps, keep=recipe.keep, residual=recipe.residual)
        model = base.clone()
        passes |= view.change(model)
        halved, types = model, Float16Record()
        if view.precision != "fp32":
            halved, types = _typed(resolved, made, file, model if view.typed else base)
        for one in [halved] if view.typed else [model, halved]:
            found = _compared(resolved, folder, view, one)
        graph.save(halved if view.typed else model, folder / file)
        return {"passes": passes, **types, "reference": view.reference, "difference": found.to_json()}

    inputs = {
        "version": view.version,
        "graphs": {name: made.artefacts.get(name) for name in ("model.onnx", "calibration.json", view.reference)},
        "keep": recipe.keep,
        "residual": recipe.residual,
        "tools": versions("onnx-ir"),
        # The inputs of the reference's step include the rows and the tokenizer, on which this record depends too.
        "reference": next(step["inputs_sha256"] for step in made.steps.values() if view.reference in step["files"]),
        **({FILE: made.artefacts[FILE]} if FILE in made.artefacts else {}),
    }
    return made.step(view.name, inputs, run)


def view_files(precision: str, names: str | None) -> list[str]:
    """Return the files of the views that `--views` names, such as `rtx,trt8`, for one precision.

    Raises:
        UsageError: a name is unknown.
    """
    asked = [name.strip() for name in names.split(",")] if names else []
    known = list(dict.fromkeys(view.name for view in VIEWS.values()))
    for name in asked:
        if name not in known:
            raise UsageError(f"--views {name}: there is no such view. Choose from {', '.join(known)}.")
    return [file for file, view in VIEWS.items() if view.precision == precision and view.name in asked]


def open_graph(bundle: Bundle, file: str) -> ir.Model:
    """Return the graph `file` of a bundle. A view that the bundle lacks is made in memory.

    For such a view, the tensors that exceed float16 are taken from the records of the bundle and not measured again.

    Raises:
        InputError: the bundle lacks the file, or the files that the view is made from.
    """
    if file in bundle.manifest["artefacts"] or file not in VIEWS:
        return graph.load(bundle.file(file))
    for name in ("model.onnx", VIEWS[file].reference):
        bundle.file(name)
    recipe = bundle.manifest["recipe"]
    artefacts, steps = bundle.manifest["artefacts"], bundle.manifest["steps"]
    model, _ = _made(bundle.path, file, artefacts, steps, keep=recipe.get("keep"), residual=recipe.get("residual"))
    VIEWS[file].change(model)
    return in_float16(model, beyond_float16(bundle.manifest["steps"])) if VIEWS[file].typed else model


def beyond_float16(steps: Mapping[str, StepRecord]) -> list[str]:
    """Return the names of the tensors that exceed float16 according to the records of a bundle's steps.

    For each of them, the list also has the name that the GEMM's output has in a view for TensorRT-RTX, before the Mul
    that applies the scale of each channel.
    """
    records: list[Float16Record] = [steps[name]["record"] for name in ("half", "rtx", "trt8") if name in steps]
    records += [typed_view(steps["quantize"]["record"])[1]] if "quantize" in steps else []
    beyond = [one["tensor"] for record in records for one in record.get("beyond_float16", [])]
    return list(dict.fromkeys(name for one in beyond for name in (one, f"{one}{UNSCALED}")))


def in_float16(model: ir.Model, beyond: list[str]) -> ir.Model:
    """Return a float16 copy of a float32 graph, in which the tensors named in `beyond` stay in float32."""
    made = model.clone()
    to_half(made, beyond)
    return made


def _texts(resolved: ResolvedRecipe, file: str) -> list[Text]:
    """Return the texts on which the largest values of a view's tensors are measured."""
    try:
        return range_texts(resolved, parity_texts(resolved))
    except ToolchainError as error:
        log.warning(
            "%s: the range of its tensors is measured on built-in sentences only, because the rows are missing. (%s)",
            file,
            error,
        )
        return probe_texts(resolved.head.texts_per_row)


def _made(
    folder: Path,
    file: str,
    artefacts: Mapping[str, str],
    steps: Mapping[str, StepRecord],
    *,
    keep: str | None,
    residual: str | None,
) -> tuple[ir.Model, Passes]:
    """Return the float32 graph from which the view `file` is made, with the number of changes of each pass so far.

    In INT8 the graph has Q/DQ nodes. `keep` and `residual` are the options of the recipe.
    """
    view, passes = VIEWS[file], Passes()
    if view.precision == "int8":
        healed = healed_of(folder, artefacts, steps, OF_TENSORRT)
        model, quantized = quantized_graph(folder, TENSORRT, keep=keep, residual=residual, healed=healed)
        passes |= quantized["passes"]
    else:
        model = graph.load(folder / "model.onnx")
        passes["first_token"] = first_token(model)
    return model, passes


def _typed(resolved: ResolvedRecipe, made: BundleWriter, file: str, model: ir.Model) -> tuple[ir.Model, Float16Record]:
    """Convert the float32 graph of a view to float16; return it with the record of the tensors that stay in float32.

    The intermediate results of LayerNorm stay in float32 in this graph, as TensorRT 8 computes them.

    Raises:
        GateError: rounded to float16, a tensor is NaN or infinite.
        InputError: ONNX Runtime cannot run the graph on the rows.
    """
    tokens = resolved.encode(_texts(resolved, file))
    beyond = measure_range(model, tokens).beyond()
    halved = in_float16(model, [*beyond_float16(made.steps), *(one["tensor"] for one in beyond)])
    if fault := fault_in_halves(halved, tokens):
        raise GateError(f"{file}: {fault}. Build with --precision fp32.")
    return halved, {"beyond_float16": beyond}


def _compared(resolved: ResolvedRecipe, folder: Path, view: View, model: ir.Model) -> parity.Parity:
    """Compare the logits of a view's graph `model` with those of its reference in `folder`; return the differences.

    Both run on built-in sentences, because the rows of the task may be missing on this machine.

    Raises:
        GateError: the logits differ by more than the view's `rtol` allows.
    """
    tokens = resolved.encode(probe_texts(resolved.head.texts_per_row))
    reference, halves = folder / view.reference, has_halves(model)
    with (
        open_runtime("ort", reference, device="cpu", halves=graph.file_has_halves(reference)) as expected,
        open_runtime("ort", graph.message(model), device="cpu", halves=halves) as actual,
    ):
        found = parity.compare(expected, actual, tokens, decide=resolved.head.decide, longest=resolved.max_length)
    near = max(view.rtol, HALF_RTOL) if halves else view.rtol
    report = "Report this as a bug, with the model's architecture."
    if not found.finite:
        raise GateError(
            f"{view.file}: it or {view.reference} computes NaN or infinity on a built-in sentence. {report}"
        )
    if found.rms_logit_difference > near * max(1.0, found.largest_logit):
        raise GateError(
            f"{view.file}: its logits differ from those of {view.reference} by {found.rms_logit_difference:.2g} (root "
            f"mean square), too much for logits of up to {found.largest_logit:.2g}. {report}"
        )
    return found


def _for_rtx(model: ir.Model) -> Passes:
    return {"common_scale": common_scale(model)}


VIEWS: dict[str, View] = {
    view.file: view
    for view in (
        View("model.int8.rtx.onnx", "rtx", "int8", "model.int8.onnx", 0.15, change=_for_rtx, typed=True, version=4),
        View("model.fp32.trt8.onnx", "trt8", "fp32", "model.onnx", 1e-4, change=for_trt8, typed=False, version=1),
        View("model.fp16.trt8.onnx", "trt8", "fp16", "model.onnx", 1e-3, change=for_trt8, typed=False, version=3),
        View("model.int8.trt8.onnx", "trt8", "int8", "model.int8.onnx", 0.15, change=for_trt8, typed=False, version=3),
    )
}
