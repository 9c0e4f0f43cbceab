"""The engine of a bundle: the last step of a build, on a machine with a GPU and TensorRT, or with TensorRT-RTX alone.

There are two paths to a plan:

native  The typed graph is built strongly typed, and TensorRT fuses attention itself. TensorRT 10 and 11 can do this,
        and TensorRT-RTX, which needs no GPU for it.
plugin  A graph without padding is built, in which NVIDIA's plugins compute attention. FP16 is strongly typed. INT8
        takes its scales from a calibration cache, which only TensorRT 10 reads. The cache is made from our own ranges,
        or by TensorRT's entropy calibrator on a static network with the same tensor names.

An INT8 or FP8 engine that has no GEMM in that type is refused after its build.
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

# Raise it when the code of this step changes the files that it writes.
COMPILE_VERSION = 1

# TensorRT's timing caches, one for each GPU model and version.
TIMING = Path("engines/build/.timing")

# Layers and log of engines that were refused, by their tag.
REFUSED = Path("engines/build/.refused")


def resolved_profiles(resolved: ResolvedRecipe) -> list[Profile]:
    """Return the optimisation profiles that a recipe asks for.

    Raises:
        UsageError: an option cannot be read, or exceeds the model's length.
    """
    recipe = resolved.recipe
    return make_profiles(recipe.batch_size, recipe.seq_len, recipe.buckets, max_length=resolved.max_length)


def compile_plan(resolved: ResolvedRecipe, made: BundleWriter, machine: Machine) -> PlanRecord:
    """Build the plan for a machine into the writer's folder, or carry it over; return its record.

    Raises:
        GateError: a GEMM needs float32, which the target lacks.
        InputError: TensorRT cannot parse the graph, returns no plan, or an INT8 plan without INT8 GEMMs.
        MachineError: memory ran out, or this TensorRT lacks a feature that was asked for.
        UsageError: an option excludes this GPU.
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
            f"{resolved.bundle_folder}: lacks {source}, which {machine.release.name} is built from. Build the bundle "
            "again with this version."
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
    """Return the source of the scales of an INT8 engine on the plugin path; None for other engines."""
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
    """Return what TensorRT-RTX did not do as a typed graph asks."""
    asked = wanted(graph.load(file), quantized_gemms(steps, precision), beyond_float16(steps))
    return judge(parse_kernels(built.messages.layer_lists[0]), asked)


# An engine, its inputs as plan.json has them, and the tensors that must have a scale.
Made = tuple[Built, PlanInputs, set[str]]


def _native(
    resolved: ResolvedRecipe, steps: Mapping[str, StepRecord], staging: Path, machine: Machine, options: Options
) -> Made:
    """Build the typed graph unchanged."""
    file = machine.release.graphs[resolved.precision]
    model = graph.load(staging / file)
    major = major_of(machine.tag.tensorrt)
    unknown = check_operators(model, major=major) if has_table(major) else []
    if unknown:
        raise InputError(f"{file}: TensorRT {machine.tag.tensorrt} has no parser for {unknown[0]}. Report this bug.")
    if machine.release.cross and resolved.precision != "fp32":
        refuse_float_gemms(model, file, machine.tag.sm)
    beyond = beyond_float16(steps)
    # TensorRT 8 gets a float32 graph, and computes it in float16 where it may.
    implicit = machine.release.flags.get(resolved.precision, ())
    run_as = in_float16(model, beyond) if implicit else model
    faults = attention_faults(run_as, max_length=resolved.max_length)
    if not machine.release.cross:  # TensorRT-RTX gets such sums scaled
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
    """Log a warning if the steps of a build found GEMMs of the INT8 graph whose integer sums exceed float16."""
    record: QuantizeRecord | None = steps["quantize"]["record"] if "quantize" in steps else None
    if record and (sums := typed_view(record)[1].get("large_sums")):
        log.warning("%s: %s.", file, describe_sums(sums))


def refuse_float_gemms(model: ir.Model, file: str, sm: int) -> None:
    """Refuse a typed graph for Turing of which a GEMM stays in float32, because its values exceed float16.

    Raises:
        GateError: it names the first such GEMM.
    """
    gemms = float_gemms(model) if sm == TURING else []
    if gemms:
        raise GateError(
            f"{file}: {gemms[0]} reads or computes values beyond float16, so it stays in float32, and TensorRT-RTX "
            f"has no such GEMM for sm{TURING} ({len(gemms)} in all). Choose a later GPU (--target sm86), or TensorRT "
            "10 or 11 on that GPU (--backend trt)."
        )


def _plugin(
    resolved: ResolvedRecipe, steps: Mapping[str, StepRecord], staging: Path, machine: Machine, options: Options
) -> Made:
    """Build the graph without padding, with attention in plugins."""
    trt, integer = machine.trt, resolved.precision == "int8"
    assert machine.device is not None, "a release without a GPU has no plugins"
    if integer and not has_implicit_int8(trt):
        raise MachineError(
            f"--attention plugin: TensorRT {machine.tag.tensorrt} takes scales from the graph alone, so plugins "
            "cannot be INT8. Leave it out (Q/DQ and TensorRT's own fusion), or install TensorRT 10."
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
    """Return why an engine must be refused, or None. A type that the inspector does not report is not a reason."""
    if lost := sorted(needed & set(built.messages.missing_scales)):
        return f"TensorRT finds no scale for {lost[0]} ({len(lost)} missing)."
    layers = built.summary
    found = layers.get("fp8_products") if precision == "fp8" else layers["int8_products"]
    if precision not in QUANTIZED or layers["products"] is None or found:
        return None
    if layers["unknown_products"]:
        log.warning("the inspector does not report the types of %d GEMMs", layers["unknown_products"])
        return None
    missing = len(built.messages.missing_scales)
    kind = QUANTIZED[precision].title
    return f"{kind} was asked for, and the engine has no GEMM in {kind} ({missing} tensors without a scale)."


def _evidence(built: Built, machine: Machine) -> str:
    """Keep the layers and the log of an engine that was refused; return the advice, which names their folder."""
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
    return f"Build --precision fp16 instead, and report this with {folder}."


def _timing(machine: Machine) -> Path | None:
    """Return the file of the timing cache for this GPU model and this TensorRT, so kernels are timed only once.

    It is None without a GPU, on which kernels could be timed.
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
