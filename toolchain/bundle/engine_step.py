"""The step that builds a TensorRT engine and adds its plan (the serialised engine) to a bundle; the last of a build.

It needs a GPU and TensorRT, or TensorRT-RTX, which needs no GPU. There are two paths to a plan:

native  The plan is built from a typed graph: an ONNX graph whose tensor types and Q/DQ nodes state the type in which
        each node is computed. TensorRT 10 and 11 and TensorRT-RTX build it as a strongly typed network and fuse
        attention themselves.
plugin  The plan is built from a graph without padding, in which NVIDIA's plugins compute attention. In FP16 the network
        is strongly typed. In INT8 the scales come from a calibration cache, which TensorRT 8.6 and 10 read. The cache
        is made from the ranges in calibration.json, or by TensorRT's entropy calibrator (engine_scales.py).

An engine that was asked for in INT8 or FP8 is refused after its build if TensorRT computes no GEMM in that type.
"""

import dataclasses
import hashlib
import logging
import re
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import onnx_ir as ir

from toolchain import graph
from toolchain.base.amounts import counted
from toolchain.base.files import sha256_file, write_bytes, write_json, write_text
from toolchain.bundle import quantized_gemms, typed_view
from toolchain.bundle.engine_scales import find_scales
from toolchain.bundle.machine import Machine
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.bundle.views import beyond_float16, in_float16
from toolchain.bundle.writer import BundleWriter
from toolchain.engine.api import has_implicit_int8, major_of
from toolchain.engine.builder import Builder, Built
from toolchain.engine.calibrator import entropy_calibrator
from toolchain.engine.config import Options, Shapes
from toolchain.engine.cuda import open_gpu
from toolchain.engine.judge import judge, wanted
from toolchain.engine.kernels import parse_kernels
from toolchain.engine.plan import LAYERS, PLAN, RECORD, SCHEMA, TURING
from toolchain.engine.plugins import VARIABLE_LENGTH, plugin_versions
from toolchain.engine.shapes import Profile, make_profiles
from toolchain.engine.weak import keep_in_float32
from toolchain.errors import GateError, InputError, MachineError
from toolchain.graph.encoder import parse_encoder, tensor_names
from toolchain.graph.gemms import float_gemms
from toolchain.graph.operators import check_operators, has_table
from toolchain.graph.plugin_graph import FP16, INT8, check_packable, packed_graph
from toolchain.graph.trt8 import float_nodes
from toolchain.graph.trt_fusable import attention_faults
from toolchain.recipe.groups import ENGINE
from toolchain.recipe.tables import QUANTIZED
from toolchain.records.bundle import QuantizeRecord, StepRecord
from toolchain.records.plan import EngineCalibration, EngineOptions, PlanInputs, PlanRecord, PlanSource
from toolchain.runtimes.environment import version_of
from toolchain.runtimes.half_range import describe_sums

log = logging.getLogger(__name__)

# Version of this step. Raise it when the step's code changes the files that it writes.
COMPILE_VERSION = 1

# Folder of TensorRT's timing caches, one for each GPU model and TensorRT version.
TIMING = Path("engines/build/.timing")

# Folder for the layers and the log of refused engines, with a subfolder for each tag (GPU and TensorRT version).
REFUSED = Path("engines/build/.refused")


def resolved_profiles(resolved: ResolvedRecipe) -> list[Profile]:
    """Return the optimisation profiles that `--batch-size`, `--seq-len` and `--buckets` describe.

    Raises:
        UsageError: one of these options cannot be read, or has rows longer than the model takes.
    """
    recipe = resolved.recipe
    return make_profiles(recipe.batch_size, recipe.seq_len, recipe.buckets, max_length=resolved.max_length)


def compile_plan(resolved: ResolvedRecipe, made: BundleWriter, machine: Machine) -> PlanRecord:
    """Build a machine's plan, or keep the old plan if it is current; return the content of plan.json.

    Raises:
        GateError: a GEMM must stay in float32, and the target cannot compute it.
        InputError: TensorRT cannot parse the graph or returns no plan, or a quantized plan has no quantized GEMM.
        MachineError: memory ran out, or this TensorRT lacks a feature that was asked for.
        UsageError: an option of the engine cannot be used on this GPU.
    """
    recipe, folder = resolved.recipe, machine.tag.folder
    options = Options(
        recipe.workspace_mb, recipe.optimization_level, recipe.version_compatible, recipe.hardware_compatible
    )
    options.check(machine.tag.sm)
    if machine.release.cross:
        options = dataclasses.replace(options, target=machine.tag.sm)
    source = "model.onnx" if recipe.attention == "plugin" else machine.release.graphs[resolved.precision]
    if source not in made.artefacts:
        raise InputError(
            f"{resolved.bundle_folder}: the bundle lacks {source}, which an engine of {machine.release.name} is built "
            "from. Build the bundle again with this version."
        )
    about: PlanSource = {
        "precision": resolved.precision,
        "graph": {"file": source, "sha256": made.artefacts[source]},
        "options": cast(EngineOptions, {name: getattr(recipe, name) for name in ENGINE}),
        "profiles": [profile.to_json() for profile in resolved_profiles(resolved)],
        "calibration": _calibration_key(resolved, made),
    }
    inputs = {"version": COMPILE_VERSION, "gpu": machine.gpu, "tag": str(machine.tag), **about}

    def run(staging: Path) -> PlanRecord:
        place = staging / folder
        place.mkdir(parents=True, exist_ok=True)
        build = _plugin if recipe.attention == "plugin" else _native
        with open_gpu(machine.device) if machine.device else nullcontext():
            built, layout, needed = build(resolved, made.steps, staging, machine, options)
        if fault := _fault(built, resolved.precision, needed):
            raise InputError(f"{source}: {fault} {_evidence(built, machine)}")
        if machine.release.cross and resolved.precision != "fp32":
            layout["not_as_asked"] = _not_as_asked(built, staging / source, made.steps, resolved.precision)
        record = _record(f"{folder}/{PLAN}", built, about, layout, machine)
        write_bytes(place / PLAN, built.plan)
        write_text(place / LAYERS, built.layers)
        write_json(place / RECORD, record)
        return record

    return made.step(folder, inputs, run, redo=recipe.force)


def _calibration_key(resolved: ResolvedRecipe, made: BundleWriter) -> EngineCalibration | None:
    """Return where the scales of an INT8 engine on the plugin path come from: digests of the cache, rows or ranges.

    The engine is built again if a digest changes. The result is None for other engines, with scales in the graph.
    """
    recipe = resolved.recipe
    if recipe.attention != "plugin" or resolved.precision != "int8":
        return None
    if recipe.gives_cache:
        return {"cache_sha256": sha256_file(Path(str(recipe.calibration)))}
    key: EngineCalibration = {
        "samples": len(resolved.calibration_rows),
        "data_sha256": resolved.calibration_rows.digest,
    }
    if recipe.calibrator == "own":
        key["file"], key["sha256"] = "calibration.json", made.artefacts.get("calibration.json")
    return key


def _not_as_asked(built: Built, file: Path, steps: dict[str, StepRecord], precision: str) -> list[str]:
    """Return one sentence for each point in which TensorRT-RTX's kernels differ from what the typed graph asks for.

    An example is a GEMM that has Q/DQ nodes but is computed in float16.
    """
    asked = wanted(graph.load(file), quantized_gemms(steps, precision), beyond_float16(steps))
    return judge(parse_kernels(built.messages.layer_lists[0]), asked)


# A built engine, its inputs as plan.json describes them, and the names of the tensors that must have a scale.
Made = tuple[Built, PlanInputs, set[str]]


def _native(
    resolved: ResolvedRecipe, steps: Mapping[str, StepRecord], staging: Path, machine: Machine, options: Options
) -> Made:
    """Build an engine on the native path: from the typed graph as it is, without plugins."""
    file = machine.release.graphs[resolved.precision]
    model = graph.load(staging / file)
    major = major_of(machine.tag.tensorrt)
    unknown = check_operators(model, major=major) if has_table(major) else []
    if unknown:
        raise InputError(
            f"{file}: TensorRT {machine.tag.tensorrt} cannot parse it: {unknown[0]}. Report this as a bug."
        )
    if machine.release.cross and resolved.precision != "fp32":
        refuse_float_gemms(model, file, machine.tag.sm)
    beyond = beyond_float16(steps)
    # Only TensorRT 8 has such flags: it reads a float32 graph, and chooses which nodes to compute in float16.
    implicit = machine.release.flags.get(resolved.precision, ())
    run_as = in_float16(model, beyond) if implicit else model
    faults = attention_faults(run_as, max_length=resolved.max_length)
    if not machine.release.cross:  # the graph for TensorRT-RTX avoids large sums (graph/common_scale.py)
        warn_of_sums(file, steps)
    builder = Builder(machine.trt, file)
    network = builder.parse((staging / file).read_bytes(), strongly_typed=True)
    if "OBEY_PRECISION_CONSTRAINTS" in implicit:
        keep_in_float32(machine.trt, network, float_nodes(model, beyond))
    names = [str(value.name) for value in model.graph.inputs]
    profiles: list[Shapes] = [profile.padded(names) for profile in resolved_profiles(resolved)]
    built = builder.build(network, profiles, options, timing=_timing(machine), implicit=implicit)
    return built, {"layout": "padded", "inputs": names, "unfused_because": faults}, set()


def warn_of_sums(file: str, steps: Mapping[str, StepRecord]) -> None:
    """Log a warning if GEMMs of the INT8 graph `file` have integer sums that are too large for float16.

    The step `quantize` measured these sums; its record is in `steps`.
    """
    record: QuantizeRecord | None = steps["quantize"]["record"] if "quantize" in steps else None
    if record and (sums := typed_view(record)[1].get("large_sums")):
        log.warning("%s: %s.", file, describe_sums(sums))


def refuse_float_gemms(model: ir.Model, file: str, sm: int) -> None:
    """Raise an error if a typed graph has GEMMs in float32 and is to be compiled for a Turing GPU.

    `sm` is the compute capability of the GPU times ten: 75 for Turing. TensorRT-RTX has no float32 GEMM
    for Turing. Such GEMMs stay in float32 because their values exceed float16.

    Raises:
        GateError: the graph has such GEMMs; the message names the first one.
    """
    gemms = float_gemms(model) if sm == TURING else []
    if gemms:
        raise GateError(
            f"{file}: {gemms[0]} reads or computes values too large for float16, so it stays in float32, and "
            f"TensorRT-RTX has no float32 GEMM for sm{TURING} (number of such GEMMs: {len(gemms)}). Choose a later GPU "
            "(--target sm86), or build with TensorRT 10 or 11 on the GPU itself (--backend trt)."
        )


def _plugin(
    resolved: ResolvedRecipe, steps: Mapping[str, StepRecord], staging: Path, machine: Machine, options: Options
) -> Made:
    """Build an engine on the plugin path: from a graph without padding, in which plugins compute attention."""
    trt, integer = machine.trt, resolved.precision == "int8"
    assert machine.device is not None, "a release without a GPU has no plugins"
    if integer and not has_implicit_int8(trt):
        raise MachineError(
            f"--attention plugin: TensorRT {machine.tag.tensorrt} reads no calibration cache, which INT8 plugins need. "
            "Leave the option out, so that TensorRT fuses attention itself, or install TensorRT 10."
        )
    encoder = parse_encoder(graph.load(staging / "model.onnx"))
    check_packable(encoder, max_length=resolved.max_length, sm=machine.tag.sm, precision=resolved.precision)
    builder = Builder(trt, "model.plugin.onnx")
    versions = plugin_versions(trt, VARIABLE_LENGTH)
    scales = None
    if integer:
        scales = find_scales(
            resolved, staging, trt, machine.tag, encoder, resolved_profiles(resolved)[-1], machine.device
        )
    model = packed_graph(
        encoder,
        dtype="float32" if integer else "float16",
        attention_type=INT8 if integer else FP16,
        norm_type=FP16,
        versions=versions,
    )
    network = builder.parse(graph.serialised(model), strongly_typed=not integer)
    names = [str(value.name) for value in model.graph.inputs]
    profiles: list[Shapes] = [profile.packed(names) for profile in resolved_profiles(resolved)]
    calibrator = entropy_calibrator(trt, (), cache=scales) if integer else None
    implicit = ("FP16", "INT8") if integer else ()
    built = builder.build(network, profiles, options, timing=_timing(machine), calibrator=calibrator, implicit=implicit)
    needed = set(tensor_names(encoder)) if integer else set()
    return built, {"layout": "packed", "inputs": names, "plugins": versions}, needed


def _fault(built: Built, precision: str, needed: set[str]) -> str | None:
    """Return why a built engine must be refused; None if it need not be.

    The reasons are a tensor in `needed` without a scale, and a quantized precision in which no GEMM is computed. If
    TensorRT's inspector does not report the types of GEMMs, the engine is not refused, but a warning is logged.
    """
    if lost := sorted(needed & set(built.messages.missing_scales)):
        return f"TensorRT found no scale for {counted(len(lost), 'tensor')}, the first of them {lost[0]}."
    layers = built.summary
    found = layers.get("fp8_products") if precision == "fp8" else layers["int8_products"]
    if precision not in QUANTIZED or layers["products"] is None or found:
        return None
    if layers["unknown_products"]:
        log.warning(
            "TensorRT's engine inspector does not report the types of %d GEMMs, so they were not checked",
            layers["unknown_products"],
        )
        return None
    missing = counted(len(built.messages.missing_scales), "tensor")
    kind = QUANTIZED[precision].title
    return f"{kind} was asked for, but the engine computes no GEMM in {kind} ({missing} without a scale)."


def _evidence(built: Built, machine: Machine) -> str:
    """Save the layers and the log of a refused engine in a folder; return the advice that ends the error message."""
    folder = REFUSED / Path(machine.tag.folder).name
    write_text(folder / LAYERS, built.layers)
    write_json(
        folder / "heard.json",
        {
            "gpu": machine.gpu,
            "tag": str(machine.tag),
            "layers": built.summary,
            "errors": built.messages.errors,
            "warnings": built.messages.warnings,
        },
    )
    return f"Build with --precision fp16 instead, and report this with the files in {folder}."


def _timing(machine: Machine) -> Path | None:
    """Return the path of TensorRT's timing cache for this GPU model and version, so that kernels are timed only once.

    It is None if the plan is compiled without a GPU, because no kernel is timed then.
    """
    if machine.gpu is None:
        return None
    name = re.sub(r"[^A-Za-z0-9]+", "-", machine.gpu)
    return TIMING / f"{name}-sm{machine.tag.sm}-trt{machine.tag.tensorrt}.cache"


def _record(file: str, built: Built, about: PlanSource, layout: PlanInputs, machine: Machine) -> PlanRecord:
    """Return the content of plan.json."""
    timing = _timing(machine)
    return {
        "file": file,
        "schema": SCHEMA,
        "backend": machine.tag.backend,
        "sm": machine.tag.sm,
        "tensorrt": machine.tag.tensorrt,
        "gpu": machine.gpu,
        "cuda_driver": machine.cuda,
        "plan_sha256": hashlib.sha256(built.plan).hexdigest(),
        "plan_bytes": len(built.plan),
        "version_compatible": about["options"]["version_compatible"],
        **about,
        "versions": {name: version_of(name) for name in ("pycuda", "onnx-ir", "torch")},
        "timing_cache_sha256": sha256_file(timing) if timing and timing.exists() else None,
        "layers": built.summary,
        "missing_scales": len(built.messages.missing_scales),
        "warnings": built.messages.warnings[:20],
        "build_s": round(built.seconds, 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **layout,
    }
