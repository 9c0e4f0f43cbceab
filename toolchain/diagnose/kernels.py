"""Show the kernels that TensorRT-RTX compiles a bundle to, with lower bounds for their time; no GPU is needed."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import onnx_ir as ir

from toolchain import graph
from toolchain.base.files import write_json
from toolchain.bundle import RESULTS, Bundle, last_bundle, open_bundle, quantized_gemms
from toolchain.bundle.engine_step import refuse_float_gemms
from toolchain.bundle.views import beyond_float16, open_graph
from toolchain.engine.cross import compile_kernels
from toolchain.engine.judge import judge, wanted
from toolchain.engine.kernels import MULTIPLYING
from toolchain.engine.releases import RELEASES, import_release
from toolchain.engine.shapes import parse_triple
from toolchain.engine.targets import parse_targets, require_units
from toolchain.errors import UsageError
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import to_half
from toolchain.profile.groups import place_kernels
from toolchain.profile.roofline.gpus import Gpu, find_target
from toolchain.profile.roofline.kernels import bounded, grouped
from toolchain.recipe.options import RecipeValues
from toolchain.recipe.tables import QUANTIZED
from toolchain.records.kernels import CompiledGraph, ExplainedTarget

# Default shape for which the kernels are compiled: rows, and tokens per row.
BATCH, LENGTH = 32, 128

# Folder of the records in a bundle.
FOLDER = Path(RESULTS) / "kernels"

# The kinds of kernels that do not multiply matrices.
OTHERS = ("elementwise", "copy", "other")


def explain_target(place: Path | None, changes: RecipeValues) -> ExplainedTarget:
    """Compile a bundle's FP16 graph and its INT8 or FP8 graph for `target`; return and save a record of their kernels.

    Each kernel has a lower bound for its time. `batch_size` and `seq_len` in `changes` are the shape. If the bundle has
    no FP16 graph, it is made from model.onnx here.

    Raises:
        UsageError: the target is unknown, has no data sheet or names several GPUs, or a shape is not one number.
        MachineError: TensorRT-RTX is not installed.
        GateError: a GEMM needs float32, which the target does not support.
        InputError: the bundle cannot be read, or TensorRT-RTX does not compile a graph.
    """
    target = changes["target"]
    trt = import_release("trt-rtx")
    capabilities = parse_targets(trt, target)
    if len(capabilities) > 1:
        raise UsageError(f"--target {target}: this names several GPUs. Give one.")
    gpu = find_target(target, capabilities[0])
    batch = _number("batch-size", changes.get("batch_size"), BATCH)
    length = _number("seq-len", changes.get("seq_len"), LENGTH)
    bundle = open_bundle(place or last_bundle(), trust=changes.get("trust"))
    graphs = [
        _compiled(bundle, precision, gpu, capabilities[0], batch=batch, length=length)
        for precision in ("fp16", *QUANTIZED)
        if precision == "fp16" or f"model.{precision}.onnx" in bundle.manifest["artefacts"]
    ]
    record: ExplainedTarget = {
        "bundle": str(bundle.path),
        "target": target,
        "sm": capabilities[0],
        "gpu": gpu.name,
        "source": gpu.source,
        "compiler": f"{RELEASES['trt-rtx'].name} {trt.__version__}",
        "batch": batch,
        "length": length,
        "graphs": graphs,
        "answer": answer(graphs, gpu),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    file = bundle.path / FOLDER / f"{target}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, record)
    return record


def _number(option: str, text: str | None, default: int) -> int:
    low, best, high = parse_triple(option, text, (default,) * 3)
    if not low == best == high:
        raise UsageError(f"--{option} {text}: kernels are compiled for a single shape. Give one number.")
    return best


def _compiled(bundle: Bundle, precision: str, gpu: Gpu, sm: int, *, batch: int, length: int) -> CompiledGraph:
    name = RELEASES["trt-rtx"].graphs[precision]
    known = name in bundle.manifest["artefacts"]
    half = precision == "fp16" and not known
    beyond = beyond_float16(bundle.manifest["steps"])
    model = _half(graph.load(bundle.file("model.onnx")), beyond) if half else open_graph(bundle, name)
    refuse_float_gemms(model, name, sm)
    require_units(precision, sm, gpu.name)
    compiled = compile_kernels(model, sm, batch=batch, length=length, where=name)
    places = place_kernels(compiled, model)
    kernels = [
        bounded(kernel, gpu.ceiling, part=at.group, layer=at.layer) for kernel, at in zip(compiled, places, strict=True)
    ]
    return {
        "artefact": name if known else "made of model.onnx",
        "precision": precision,
        "made_from": {name: bundle.manifest["artefacts"][name] for name in _sources(bundle, name)},
        "kernels": kernels,
        "groups": grouped(kernels),
        "bytes": sum(one["bytes"] or 0 for one in kernels),
        "us": sum(one["us"] for one in kernels),
        "not_as_asked": judge(compiled, wanted(model, quantized_gemms(bundle.manifest["steps"], precision), beyond)),
    }


def _sources(bundle: Bundle, name: str) -> list[str]:
    """Return the bundle's files that a graph depends on: the graph itself or, if missing, the files it is made from."""
    made_of = ("model.onnx", "calibration.json", "model.int8.onnx")
    return [
        one
        for one in ([name] if name in bundle.manifest["artefacts"] else made_of)
        if one in bundle.manifest["artefacts"]
    ]


def _half(model: ir.Model, beyond: list[str]) -> ir.Model:
    """Return the graph in FP16, as a build makes it; the tensors in `beyond` exceed float16 and stay in float32."""
    first_token(model)
    to_half(model, beyond)
    return model


def answer(graphs: list[CompiledGraph], gpu: Gpu) -> str:
    """Return an explanation of how fast INT8 or FP8 is compared with FP16, and what keeps it from being faster."""
    if len(graphs) < 2:
        return "The bundle has no INT8 graph to compare with. Build one with toolchain build --precision int8."
    half, integer = graphs
    precision = integer["precision"]
    title = QUANTIZED[precision].title
    ratio, peak = half["us"] / integer["us"], gpu.tera_per_s[precision] / gpu.tera_per_s["fp16"]
    rest, rest_half = _us(integer, OTHERS), _us(half, OTHERS)
    faster = f"{ratio:.2f} times as fast as FP16" if ratio > 1 else f"not faster than FP16 ({ratio:.2f} times)"
    gemms_us, gemms_us_half = _us(integer, MULTIPLYING), _us(half, MULTIPLYING)
    not_integer = sum(
        one["us"] for one in integer["kernels"] if one["kind"] in MULTIPLYING and one["precision"] != precision
    )
    more = (
        f", and GEMMs that are not in {title} take {not_integer:,.0f} µs" if not_integer > 0.02 * integer["us"] else ""
    )
    return (
        f"By the bounds of its kernels {title} is {faster}: {integer['us']:,.0f} against {half['us']:,.0f} µs per "
        "batch. "
        f"Its GEMMs are up to {peak:.3g} times as fast, so GEMMs and attention go from {gemms_us_half:,.0f} "
        f"to {gemms_us:,.0f} µs. But the other kernels, which only move memory, take {rest:,.0f} µs in {title} "
        f"({rest / integer['us']:.0%} of the batch) and {rest_half:,.0f} µs in FP16{more}."
    )


def _us(compiled: CompiledGraph, kinds: Iterable[str]) -> float:
    return sum(one["us"] for one in compiled["kernels"] if one["kind"] in kinds)
