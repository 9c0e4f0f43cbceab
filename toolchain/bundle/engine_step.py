"""Typed graph to TensorRT engine: the last step of a build, on a machine with a GPU and TensorRT.

Two roads lead to a plan:

native  the typed graph as it is, strongly typed; TensorRT fuses attention itself. TensorRT 10 and 11.
plugin  a graph without padding, in which NVIDIA's plugins do the attention. FP16 is strongly typed. INT8 takes its
        scales from a calibration cache, which only TensorRT 10 reads: made from our own ranges, or by TensorRT's
        entropy calibrator on a static network with the same tensor names.

After the build the engine is looked at: one that was to be INT8 and multiplies nothing in INT8 is a failure.
"""

import hashlib
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolchain import graph
from toolchain.bundle.engine_scales import find_scales
from toolchain.bundle.resolved import ResolvedRecipe
from toolchain.bundle.writer import BundleWriter
from toolchain.engine.api import has_implicit_int8, import_tensorrt, major_of
from toolchain.engine.builder import Builder, Built, Options, Shapes
from toolchain.engine.calibrator import entropy_calibrator
from toolchain.engine.cuda import import_pycuda, open_gpu
from toolchain.engine.plan import LAYERS, PLAN, RECORD, SCHEMA, Tag
from toolchain.engine.plugins import VARIABLE_LENGTH, plugin_versions
from toolchain.engine.shapes import Profile, make_profiles
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.files import sha256_file, write_bytes, write_json, write_text
from toolchain.graph.encoder import parse_encoder, tensor_names
from toolchain.graph.fusable import attention_faults
from toolchain.graph.operators import check_operators
from toolchain.graph.plugin_graph import FP16, INT8, check_packable, packed_graph
from toolchain.recipe import ENGINE
from toolchain.runtimes.device import choose_device
from toolchain.runtimes.environment import version_of

log = logging.getLogger(__name__)

COMPILE_VERSION = 1
"""Raised when this step's code changes what it writes."""

GRAPHS = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
TIMING = Path("engines/build/.timing")
REFUSED = Path("engines/build/.refused")
"""Layers and log of an engine that was refused, by its tag."""

LEAST_SM = 75
"""Turing: the oldest that TensorRT 10 and 11 build for."""


@dataclass(frozen=True)
class Machine:
    """What an engine can be built with here."""

    trt: Any
    tag: Tag
    gpu: str
    cuda: str
    device: str


def find_machine(device: str) -> Machine:
    """Return the GPU and the TensorRT of this machine.

    Raises:
        MachineError: one of them is missing; the message says which, and what to do.
        UsageError: no such device name, or the CPU.
    """
    if device == "cpu":
        raise UsageError("--device cpu: TensorRT runs on GPUs only. Choose cuda[:N], or --backend ort.")
    place = choose_device(device, cuda=True)
    trt = import_tensorrt()
    import_pycuda()
    with open_gpu(place) as gpu:
        if gpu.sm < LEAST_SM:
            raise MachineError(
                f"{gpu.name}: compute capability {gpu.sm // 10}.{gpu.sm % 10}, and TensorRT needs 7.5 (Turing). "
                "Use another GPU, or --backend ort."
            )
        return Machine(trt, Tag(gpu.sm, trt.__version__), gpu.name, gpu.cuda, place)


def resolved_profiles(resolved: ResolvedRecipe) -> list[Profile]:
    """Return the optimisation profiles that a job asks for.

    Raises:
        UsageError: they cannot be read, or exceed the model's length.
    """
    recipe = resolved.recipe
    return make_profiles(recipe.batch_size, recipe.seq_len, recipe.buckets, max_length=resolved.max_length)


def compile_plan(resolved: ResolvedRecipe, made: BundleWriter, machine: Machine) -> dict[str, Any]:
    """Build the plan for this machine into the stage's folder, or carry it over; return its record.

    Raises:
        InputError: TensorRT cannot parse the graph, gives no plan, or one without INT8 that was to have it.
        MachineError: memory ran out, or this TensorRT lacks what was asked for.
        UsageError: an option excludes this GPU.
    """
    recipe, folder = resolved.recipe, machine.tag.folder
    options = Options(
        recipe.workspace_mb, recipe.optimization_level, recipe.version_compatible, recipe.hardware_compatible
    )
    options.check(machine.tag.sm)
    source = "model.onnx" if recipe.attention == "plugin" else GRAPHS[resolved.precision]
    about = {
        "precision": resolved.precision,
        "graph": {"file": source, "sha256": made.artefacts[source]},
        "options": {name: getattr(recipe, name) for name in ENGINE},
        "profiles": [profile.to_json() for profile in resolved_profiles(resolved)],
        "calibration": _calibration_key(resolved, made),
    }
    inputs = {"version": COMPILE_VERSION, "gpu": machine.gpu, "tag": str(machine.tag), **about}

    def run(staging: Path) -> dict[str, Any]:
        place = staging / folder
        place.mkdir(parents=True, exist_ok=True)
        road = _plugin if recipe.attention == "plugin" else _native
        with open_gpu(machine.device):
            built, layout, needed = road(resolved, staging, machine, options)
        if fault := _fault(built, resolved.precision, needed):
            raise InputError(f"{source}: {fault} {_evidence(built, machine)}")
        record = {"file": f"{folder}/{PLAN}", **_record(built, about, machine), **layout}
        write_bytes(place / PLAN, built.plan)
        write_text(place / LAYERS, built.layers)
        write_json(place / RECORD, record)
        return record

    return made.step(folder, inputs, run, redo=recipe.force)


def _calibration_key(resolved: ResolvedRecipe, made: BundleWriter) -> Any:
    """Return what an INT8 plugin engine's scales come from, apart from the graph."""
    recipe = resolved.recipe
    if recipe.attention != "plugin" or resolved.precision != "int8":
        return None
    if recipe.gives_cache:
        return {"cache_sha256": sha256_file(Path(str(recipe.calibration)))}
    rows = {"samples": len(resolved.calibration_rows), "data_sha256": resolved.calibration_rows.digest}
    own = {"file": "calibration.json", "sha256": made.artefacts.get("calibration.json")}
    return rows | (own if recipe.calibrator == "own" else {})


Made = tuple[Built, dict[str, Any], set[str]]
"""An engine, what plan.json says of its inputs, and the tensors that must have a scale."""


def _native(resolved: ResolvedRecipe, staging: Path, machine: Machine, options: Options) -> Made:
    """Build the typed graph as it is."""
    file = GRAPHS[resolved.precision]
    model = graph.load(staging / file)
    unknown = check_operators(model, major=major_of(machine.tag.tensorrt))
    if unknown:
        raise InputError(f"{file}: TensorRT {machine.tag.tensorrt} has no parser for {unknown[0]}. Report this bug.")
    faults = attention_faults(model, max_length=resolved.max_length)
    builder = Builder(machine.trt, file)
    network = builder.parse((staging / file).read_bytes(), strongly_typed=True)
    names = [str(value.name) for value in model.graph.inputs]
    profiles: list[Shapes] = [profile.padded(names) for profile in resolved_profiles(resolved)]
    built = builder.build(network, profiles, options, timing=_timing(machine))
    return built, {"layout": "padded", "inputs": names, "unfused_because": faults}, set()


def _plugin(resolved: ResolvedRecipe, staging: Path, machine: Machine, options: Options) -> Made:
    """Build the graph without padding, its attention in plugins."""
    trt, integer = machine.trt, resolved.precision == "int8"
    if integer and not has_implicit_int8(trt):
        raise MachineError(
            f"--attention plugin: TensorRT {machine.tag.tensorrt} takes no scales from outside the graph, so plugins "
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
    """Return why an engine is not what was asked for, or None; what the inspector does not tell is no fault."""
    if lost := sorted(needed & set(built.messages.missing_scales)):
        return f"TensorRT finds no scale for {lost[0]} ({len(lost)} missing)."
    layers = built.summary
    if precision != "int8" or layers["products"] is None or layers["int8_products"]:
        return None
    if layers["unknown_products"]:
        log.warning("the inspector does not tell the types of %d products", layers["unknown_products"])
        return None
    missing = len(built.messages.missing_scales)
    return f"INT8 was asked for, and the engine multiplies nothing in INT8 ({missing} tensors without a scale)."


def _evidence(built: Built, machine: Machine) -> str:
    """Keep what tells why an engine was refused, and return the sentence that names it."""
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
    return f"Build --precision fp16 meanwhile, and send in {folder}."


def _timing(machine: Machine) -> Path:
    """Return the timing cache's file: kernels are timed once for a GPU model and TensorRT build."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", machine.gpu)
    return TIMING / f"{name}-sm{machine.tag.sm}-trt{machine.tag.tensorrt}.cache"


def _record(built: Built, about: dict[str, Any], machine: Machine) -> dict[str, Any]:
    """Return plan.json: where the plan runs, what it was made from, and what it became."""
    timing = _timing(machine)
    return {
        "schema": SCHEMA,
        "sm": machine.tag.sm,
        "tensorrt": machine.tag.tensorrt,
        "gpu": machine.gpu,
        "cuda_driver": machine.cuda,
        "plan_sha256": hashlib.sha256(built.plan).hexdigest(),
        "plan_bytes": len(built.plan),
        "version_compatible": about["options"]["version_compatible"],
        **about,
        "versions": {name: version_of(name) for name in ("polygraphy", "pycuda", "onnx-ir", "torch")},
        "timing_cache_sha256": sha256_file(timing) if timing.exists() else None,
        "layers": built.summary,
        "missing_scales": len(built.messages.missing_scales),
        "warnings": built.messages.warnings[:20],
        "build_s": round(built.seconds, 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
