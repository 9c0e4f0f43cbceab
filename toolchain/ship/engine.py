"""What the classifier of a repository runs: plans, a graph for a GPU, or a graph for a CPU."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.bundle import Bundle
from toolchain.engine.plan import is_plan, read_record, rebuild
from toolchain.engine.shapes import Profile
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.evaluation.target import choose_graph, plans
from toolchain.ship.config import Values
from toolchain.ship.options import Options
from toolchain.ship.signature import Tensors, computes_in_float16, signature, to_json

log = logging.getLogger(__name__)

DEFAULT_BATCH = 64
"""Rows a batch where no plan sets a limit."""

BUCKETS = (16, 32, 64, 128, 256, 512)
"""Lengths that requests are padded to where no plan has profiles for lengths."""


@dataclass(frozen=True)
class Engine:
    """An engine to be served. `files`: name in the version's folder -> the bundle's file, or a text."""

    backend: str
    files: dict[str, Path | str]
    inputs: Tensors
    outputs: Tensors
    buckets: tuple[int, ...]
    max_batch: int
    config: Values
    """Fields of the classifier's configuration that come from the engine alone."""
    profiles: tuple[Profile, ...] = ()
    tensorrt: str | None = None
    version_compatible: bool = False


def find_engine(bundle: Bundle, options: Options) -> Engine:
    """Return what `options` ask to serve; without `backend` the bundle's plans, or the CPU's graph if it has none.

    Raises:
        InputError: the bundle lacks the file, or it is one that cannot be served.
        MachineError: plans were asked for and the bundle has none.
        UsageError: options that do not go together, or more rows a batch than a plan takes.
    """
    names = plans(bundle)
    backend = options.backend or ("trt" if names else "python")
    if backend != "ort" and options.device:
        raise UsageError(f"--device {options.device}: only with --backend ort. Leave it out.")
    if backend != "trt" and (options.cuda_graphs or options.tensorrt):
        flag = "--cuda-graphs" if options.cuda_graphs else f"--tensorrt {options.tensorrt}"
        raise UsageError(f"{flag}: only with --backend trt. Leave it out.")
    engine = _planned(bundle, names, options) if backend == "trt" else _graph(bundle, backend, options)
    if options.max_batch is None:
        return engine
    if engine.profiles and options.max_batch > engine.max_batch:
        raise UsageError(
            f"--max-batch {options.max_batch}: the plan takes {engine.max_batch} rows. Give that or less, or build "
            f"one for more: toolchain build {bundle.path} --backend trt --batch-size 1,32,{options.max_batch}."
        )
    return dataclasses.replace(engine, max_batch=options.max_batch)


def _graph(bundle: Bundle, backend: str, options: Options) -> Engine:
    """Return a graph for ONNX Runtime, in Triton's own backend on a GPU or a CPU, or in Python on a CPU."""
    device = "cpu" if backend == "python" else options.device or "cuda"
    # What is fused for CUDA runs nowhere else, and an instance of KIND_AUTO may land on a CPU: --file can name it.
    own = "ort" if device == "cpu" else "triton"
    name = options.file or choose_graph(bundle, bundle.manifest["precision"], device, backend=own)
    if is_plan(name):
        raise UsageError(f"--file {name}: a plan. Leave it out, or choose --backend trt.")
    file = bundle.file(name)
    if device == "cpu" and computes_in_float16(file):
        log.warning(
            "%s: computes in float16, which a CPU does slowly. Ship the FP32 graph with --file model.onnx, or a bundle "
            "that was built with --precision int8.",
            file,
        )
    inputs, outputs = signature(file)
    kind = "KIND_CPU" if device == "cpu" else "KIND_AUTO"
    length = bundle.manifest["max_length"]
    buckets = (*(bucket for bucket in BUCKETS if bucket < length), length)
    config = {"backend": {"ort": "onnxruntime"}.get(backend, backend), "instance_group": [{"kind": kind}]}
    return Engine(backend, {"model.onnx": file}, inputs, outputs, buckets, DEFAULT_BATCH, config)


def _planned(bundle: Bundle, names: list[str], options: Options) -> Engine:
    """Return the plans of one TensorRT, one for each compute capability."""
    if options.file:
        raise UsageError(f"--file {options.file}: a repository takes every plan of the bundle. Leave it out.")
    if not names:
        raise MachineError(
            f"{bundle.path}: no plan. Build one on a machine with that GPU and TensorRT "
            f"(toolchain build {bundle.path} --backend trt), or choose --backend ort or python."
        )
    records = {name: read_record(bundle.file(name)) for name in names}
    version = _version(bundle, records, options.tensorrt)
    records = {name: one for name, one in records.items() if one["tensorrt"] == version}
    first = next(iter(records.values()))
    profiles = _profiles(bundle, records)
    inputs, outputs = signature(bundle.file(first["graph"]["file"]))
    files: dict[str, Path | str] = {}
    by_capability: dict[str, str] = {}
    for name, record in records.items():
        plan, sm = f"model.sm{record['sm']}.plan", record["sm"]
        by_capability[f"{sm // 10}.{sm % 10}"] = plan
        tensors = {"inputs": to_json(inputs), "outputs": to_json(outputs)}
        files |= {plan: bundle.path / name, f"{plan}.json": json.dumps(record | {"tensors": tensors}, indent=2)}
    group: Values = {"kind": "KIND_AUTO", "profile": [str(index) for index in range(len(profiles))]}
    config = {
        "platform": "tensorrt_plan",
        "default_model_filename": _everywhere(records) or min(by_capability.values()),
        "cc_model_filenames": by_capability,
        "instance_group": [group],
    }
    return Engine(
        "trt",
        files,
        inputs,
        outputs,
        tuple(_buckets(profiles)),
        min(one.batch[2] for one in profiles),
        config,
        profiles,
        version,
        any(one["version_compatible"] for one in records.values()),
    )


def _version(bundle: Bundle, records: dict[str, Any], asked: str | None) -> str:
    """Return the TensorRT whose plans are shipped: a server has one, so plans of another would not load."""
    there = sorted({record["tensorrt"] for record in records.values()}, key=_numbers)
    if asked is not None and asked not in there:
        raise UsageError(f"--tensorrt {asked}: {bundle.path} has plans for {', '.join(there)}. {rebuild(bundle.path)}")
    if asked is None and len(there) > 1:
        raise UsageError(
            f"{bundle.path}: has plans for TensorRT {' and '.join(there)}, and a server has one. "
            f"Choose with --tensorrt {there[-1]}."
        )
    return asked or there[0]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def _profiles(bundle: Bundle, records: dict[str, Any]) -> tuple[Profile, ...]:
    """Return the profiles that all plans have.

    Raises:
        InputError: a plan has none of them, takes rows without padding, or not every batch and text.
    """
    length = bundle.manifest["max_length"]
    shapes = [record["profiles"] for record in records.values()]
    profiles = tuple(Profile.from_json(one) for one in shapes[0])
    again = rebuild(bundle.path).removesuffix(".")
    if any(record["layout"] != "padded" for record in records.values()):
        raise InputError(
            f"{bundle.path}: its plan takes rows without padding, which Triton's batcher does not make. "
            f"{again} --attention native."
        )
    if any(one != shapes[0] for one in shapes):
        raise InputError(f"{bundle.path}: its plans differ in their profiles. Build them with the same options.")
    if any(one.batch[0] > 1 for one in profiles):
        least = max(one.batch[0] for one in profiles)
        raise InputError(f"{bundle.path}: its plan takes no batch below {least}. {again} --batch-size 1,8,32.")
    longest = max(one.length[2] for one in profiles)
    if longest < length:
        raise InputError(
            f"{bundle.path}: its plan takes {longest} tokens, and texts are cut at {length}. "
            f"{again} --buckets {length}."
        )
    return profiles


def _buckets(profiles: tuple[Profile, ...]) -> list[int]:
    """Return the lengths to pad to: each profile's largest, or the usual ones where one profile takes all."""
    ends = sorted({one.length[2] for one in profiles})
    if len(profiles) > 1:
        return ends
    least = profiles[0].length[0]
    return [*(bucket for bucket in BUCKETS if least <= bucket < ends[-1]), ends[-1]]


def _everywhere(records: dict[str, Any]) -> str | None:
    """Return the plan that runs on compute capabilities that have none of their own."""
    for record in records.values():
        if record.get("options", {}).get("hardware_compatible") == "ampere-plus":
            return f"model.sm{record['sm']}.plan"
    return None
