"""Chooses what the classifier of a repository runs: TensorRT plans, a graph for a GPU, or a graph for a CPU."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from toolchain import graph
from toolchain.bundle import Bundle
from toolchain.engine.plan import is_plan, read_record, rebuild
from toolchain.engine.shapes import Profile
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.evaluation.target import choose_graph, plans
from toolchain.records.plan import PlanRecord
from toolchain.records.ship import Backend
from toolchain.ship.config import ConfigJson
from toolchain.ship.options import Options
from toolchain.ship.signature import Tensors, computes_in_float16, signature, to_json

log = logging.getLogger(__name__)

# Largest batch in rows if no plan sets a limit. A graph accepts any batch, so the limit bounds its memory.
DEFAULT_BATCH = 64

# Lengths in tokens to which requests are padded if no plan has profiles for lengths. Triton merges only requests of
# equal shape into a batch, so more lengths mean less padding but smaller batches.
BUCKETS = (16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Engine:
    """The engine of a repository's classifier: the files that it runs, and their limits and configuration.

    `backend`: trt, ort or python.
    `files`: name in the version folder -> a file of the bundle, or a text to write.
    `buckets`: lengths in tokens to which the tokenizer pads.
    `max_batch`: largest batch, rows.
    `config`: the fields of the classifier's configuration that depend on the engine alone.
    `profiles`: the optimisation profiles of the plans; empty without plans.
    `tensorrt`: the version of TensorRT that built the plans; None without plans.
    `version_compatible`: whether a plan is version-compatible, so that later versions of TensorRT can run it.
    """

    backend: Backend
    files: dict[str, Path | str]
    inputs: Tensors
    outputs: Tensors
    buckets: tuple[int, ...]
    max_batch: int
    config: ConfigJson
    profiles: tuple[Profile, ...] = ()
    tensorrt: str | None = None
    version_compatible: bool = False


def find_engine(bundle: Bundle, options: Options) -> Engine:
    """Return the engine that the options select: by default the plans, or the graph for a CPU if there are no plans.

    Raises:
        InputError: the bundle lacks the file, or Triton cannot serve it.
        MachineError: the backend is trt and the bundle has no plan.
        UsageError: options contradict each other, or --max-batch is larger than the plan takes.
    """
    names = plans(bundle)
    backend = cast(Backend, options.backend or ("trt" if names else "python"))  # Options checks the choice
    if backend != "ort" and options.device:
        raise UsageError(
            f"--device {options.device}: this option is only for --backend ort, whose graph it selects. Remove it."
        )
    if backend != "trt" and (options.cuda_graphs or options.tensorrt):
        flag = "--cuda-graphs" if options.cuda_graphs else f"--tensorrt {options.tensorrt}"
        raise UsageError(f"{flag}: this option is only for --backend trt, which runs TensorRT plans. Remove it.")
    engine = _planned(bundle, names, options) if backend == "trt" else _graph(bundle, backend, options)
    if options.max_batch is None:
        return engine
    if engine.profiles and options.max_batch > engine.max_batch:
        raise UsageError(
            f"--max-batch {options.max_batch}: the plan takes at most {engine.max_batch} rows. Use at most that, or "
            f"build a plan for more: toolchain build {bundle.path} --backend trt --batch-size "
            f"1,32,{options.max_batch}."
        )
    return dataclasses.replace(engine, max_batch=options.max_batch)


def _graph(bundle: Bundle, backend: Backend, options: Options) -> Engine:
    """Return the engine that runs a graph in Triton's onnxruntime backend, or on a CPU in its python backend."""
    device = "cpu" if backend == "python" else options.device or "cuda"
    # Triton may start an instance of KIND_AUTO on a CPU, where the graph fused for CUDA cannot run. So only --file
    # selects that graph.
    chooser = "ort" if device == "cpu" else "triton"
    name = options.file or choose_graph(bundle, bundle.manifest["precision"], device, backend=chooser)
    if is_plan(name):
        raise UsageError(f"--file {name}: this is a plan. Remove the option, or choose --backend trt.")
    file = bundle.file(name)
    if device == "cpu" and computes_in_float16(file):
        log.warning(
            "%s: the graph computes in float16, which is slow on a CPU. Ship the FP32 graph with --file model.onnx, or "
            "a bundle that was built with --precision int8.",
            file,
        )
    inputs, outputs = signature(file)
    kind = "KIND_CPU" if device == "cpu" else "KIND_AUTO"
    length = bundle.manifest["max_length"]
    buckets = (*(bucket for bucket in BUCKETS if bucket < length), length)
    config = {"backend": {"ort": "onnxruntime"}.get(backend, backend), "instance_group": [{"kind": kind}]}
    _, *outside = graph.files_of(file)
    # `bundle.file` refuses a file that the bundle does not list.
    weights = [bundle.file(str(one.relative_to(bundle.path))) for one in outside]
    return Engine(
        backend,
        {"model.onnx": file, **{one.name: one for one in weights}},  # names that the graph refers to
        inputs,
        outputs,
        buckets,
        DEFAULT_BATCH,
        config,
    )


def _planned(bundle: Bundle, names: list[str], options: Options) -> Engine:
    """Return the engine that runs the plans of one version of TensorRT, one for each compute capability."""
    if options.file:
        raise UsageError(f"--file {options.file}: a repository contains all plans of the bundle. Remove the option.")
    if not names:
        raise MachineError(
            f"{bundle.path}: the bundle contains no plan. Build one on a machine with the server's GPU and TensorRT "
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
    group: ConfigJson = {"kind": "KIND_AUTO", "profile": [str(index) for index in range(len(profiles))]}
    config = {
        "platform": "tensorrt_plan",
        "default_model_filename": _ampere_plus(records) or min(by_capability.values()),
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


def _version(bundle: Bundle, records: dict[str, PlanRecord], asked: str | None) -> str:
    """Return the version of TensorRT whose plans are shipped: a server contains one, and loads only plans built by it.

    Raises:
        UsageError: no plan has the version `asked`, or `asked` is None and the plans have several versions.
    """
    present = sorted({record["tensorrt"] for record in records.values()}, key=_numbers)
    if asked is not None and asked not in present:
        raise UsageError(
            f"--tensorrt {asked}: {bundle.path} has plans for {', '.join(present)}. {rebuild(bundle.path)}"
        )
    if asked is None and len(present) > 1:
        raise UsageError(
            f"{bundle.path}: the bundle has plans for TensorRT {' and '.join(present)}, but a server contains "
            f"one version. Choose one, such as --tensorrt {present[-1]}."
        )
    return asked or present[0]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def _profiles(bundle: Bundle, records: dict[str, PlanRecord]) -> tuple[Profile, ...]:
    """Return the optimisation profiles, which must be the same in all plans.

    Raises:
        InputError: the plans differ in their profiles, take only rows without padding, need more than one row, or take
            fewer tokens than the bundle's max_length.
    """
    length = bundle.manifest["max_length"]
    shapes = [record["profiles"] for record in records.values()]
    profiles = tuple(Profile.from_json(one) for one in shapes[0])
    again = rebuild(bundle.path).removesuffix(".")
    if any(record["layout"] != "padded" for record in records.values()):
        raise InputError(
            f"{bundle.path}: its plan takes only rows without padding, but Triton's batcher makes padded batches. "
            f"{again} --attention native."
        )
    if any(one != shapes[0] for one in shapes):
        raise InputError(f"{bundle.path}: its plans differ in their profiles. Build them with the same options.")
    if any(one.batch[0] > 1 for one in profiles):
        least = max(one.batch[0] for one in profiles)
        raise InputError(
            f"{bundle.path}: its plan takes at least {least} rows, but a request may have one. {again} "
            "--batch-size 1,8,32."
        )
    longest = max(one.length[2] for one in profiles)
    if longest < length:
        raise InputError(
            f"{bundle.path}: its plan takes at most {longest} tokens, but the tokenizer truncates only at {length}. "
            f"{again} --buckets {length}."
        )
    return profiles


def _buckets(profiles: tuple[Profile, ...]) -> list[int]:
    """Return the lengths in tokens to pad to: the longest length of each profile.

    If there is only one profile, the lengths in BUCKETS that lie in it are added.
    """
    ends = sorted({one.length[2] for one in profiles})
    if len(profiles) > 1:
        return ends
    least = profiles[0].length[0]
    return [*(bucket for bucket in BUCKETS if least <= bucket < ends[-1]), ends[-1]]


def _ampere_plus(records: dict[str, PlanRecord]) -> str | None:
    """Return the file name of a plan that runs on every compute capability from 8.0; None if there is none."""
    for record in records.values():
        if record.get("options", {}).get("hardware_compatible") == "ampere-plus":
            return f"model.sm{record['sm']}.plan"
    return None
