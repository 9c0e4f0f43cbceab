"""How near a run is to what its device can do (the roofline of Williams, Waterman and Patterson, 2009).

`work` counts what a pass must compute and move, `ceiling` measures what this machine can, `gpus` knows what data sheets
promise, `predict` puts a bundle on a GPU that one does not have.
"""

import dataclasses
from pathlib import Path
from typing import Any

from toolchain import graph
from toolchain.errors import InputError, MachineError
from toolchain.meters import nvml
from toolchain.roofline.ceiling import Ceiling, measure
from toolchain.roofline.gpus import Gpu, gpu_of
from toolchain.roofline.work import Extent, Work, count
from toolchain.runtimes.ort import is_half_qdq

NO_GRAPH = "no_graph"
"""A checkpoint by itself: what it computes is counted from a bundle's graph."""

NOT_COUNTED, NOT_MEASURED = "not_counted", "not_measured"
"""The graph's work is not known; or what the machine can do is not, and no data sheet of it is here."""

KEYS = (
    "flop_per_row_mean",
    "useful_flop",
    "executed_flop",
    "achieved_flop_per_s",
    "ceiling_flop_per_s",
    "model_flop_utilisation",
    "bytes_lower_bound",
    "bandwidth_utilisation",
    "bound",
    "ceiling",
    "datasheet",
)


def assess(
    file: Path | None, speed: dict[str, Any], *, rows: int, backend: str, device: str, precision: str
) -> dict[str, Any]:
    """Return the `roofline` key of a result, from its graph and its speed keys.

    `useful_flop` are the operations of the real tokens, each row at its own length, `executed_flop` those of the
    padded batches. The time is the model's alone. Utilisation is the share of that time which the ceiling would take.
    """
    if file is None:
        return _nothing(NO_GRAPH)
    try:
        work = work_of(file, backend=backend, device=device, precision=precision)
    except InputError as error:
        return _nothing(NOT_COUNTED, str(error))
    tokens, runtime_s = speed["tokens"], rows / speed["runtime_throughput_per_s"]
    useful = Extent(rows, tokens["real"], tokens["real_pairs"], tokens["batches"])
    padded = Extent(rows, tokens["slots"], tokens["slot_pairs"], tokens["batches"])
    flop, gpu = sum(work.operations(useful).values()), _gpu(device, work)
    sheet = compare(work, useful, runtime_s, gpu.ceiling) | {"gpu": gpu.name, "source": gpu.source} if gpu else None
    found = {
        "flop_per_row_mean": flop / rows,
        "useful_flop": flop,
        "executed_flop": sum(work.operations(padded).values()),
        "achieved_flop_per_s": flop / runtime_s,
        "bytes_lower_bound": work.bytes_moved(useful),
        "datasheet": sheet,
    }
    try:
        ceiling, method = measure(device, frozenset(work.flop)), "measured"
    except MachineError as error:
        if gpu is None:
            return _nothing(NOT_MEASURED, str(error)) | found
        ceiling, method = gpu.ceiling, "datasheet"
    found |= compare(work, useful, runtime_s, ceiling)
    return _nothing() | found | {"ceiling": {"method": method, **dataclasses.asdict(ceiling)}}


def work_of(file: Path, *, backend: str, device: str, precision: str) -> Work:
    """Return the work of a graph in the types that a backend runs it in on a device.

    Raises:
        InputError: it cannot be counted.
    """
    model = graph.load(file)
    if backend == "torch":
        return count(model).retyped(precision)
    if device == "cpu":
        return count(model, integers=not is_half_qdq(file), runs_as={"fp16": "fp32"})
    # On GPUs TensorRT runs float32 products as TF32; ONNX Runtime is told not to, and has no integer product there.
    return count(model, integers=backend != "ort", runs_as={} if backend == "ort" else {"fp32": "tf32"})


def compare(work: Work, extent: Extent, runtime_s: float, ceiling: Ceiling) -> dict[str, Any]:
    """Return what share of `runtime_s` a pass would take at the ceiling, by its operations and by its bytes."""
    flop = work.operations(extent)
    compute_s, memory_s = ceiling.compute_s(flop), ceiling.memory_s(work.bytes_moved(extent))
    return {
        "ceiling_flop_per_s": sum(flop.values()) / compute_s,
        "model_flop_utilisation": compute_s / runtime_s,
        "bandwidth_utilisation": memory_s / runtime_s,
        "bound": "compute" if compute_s >= memory_s else "memory",
    }


def _nothing(reason: str | None = None, detail: str | None = None) -> dict[str, Any]:
    return {**dict.fromkeys(KEYS), "reason": reason, "detail": detail}


def _gpu(device: str, work: Work) -> Gpu | None:
    """Return the data sheet of `cuda:N`, if there is one, the driver tells which GPU it is, and it has the types."""
    if device == "cpu":
        return None
    try:
        with nvml.open_nvml():
            gpu = gpu_of(nvml.visible_devices()[int(device.partition(":")[2] or 0)].name)
    except (nvml.Unavailable, IndexError):
        return None
    return gpu if gpu and not gpu.ceiling.lacks(work.flop) else None
