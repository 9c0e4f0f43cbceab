"""Compare a run with the ceiling of its device (the roofline model of Williams, Waterman and Patterson, 2009).

The ceiling is the device's highest throughput of operations and of memory traffic. `work` counts the operations and the
memory traffic of a graph, `ceiling` measures the ceiling of this machine, `gpus` has data sheets, and `estimate` gives
bounds for a bundle on a GPU that is not in this machine.
"""

from pathlib import Path
from typing import Final, Literal

from toolchain import graph
from toolchain.errors import InputError, MachineError
from toolchain.graph import is_half_qdq
from toolchain.meters import nvml
from toolchain.profile.roofline.ceiling import Ceiling, measure
from toolchain.profile.roofline.gpus import Gpu, gpu_of
from toolchain.profile.roofline.work import Extent, Work, count
from toolchain.records.result import Timing
from toolchain.records.roofline import RooflineBlock, Utilisation

# Codes for why values are null. NO_GRAPH: a checkpoint was run without a bundle, so there is no graph. NOT_COUNTED: the
# work of the graph cannot be counted. NOT_MEASURED: the ceiling of the machine cannot be measured, and its GPU has no
# data sheet here.
NO_GRAPH: Final = "no_graph"
NOT_COUNTED: Final = "not_counted"
NOT_MEASURED: Final = "not_measured"


def assess(file: Path | None, speed: Timing, *, rows: int, backend: str, device: str, precision: str) -> RooflineBlock:
    """Return the `roofline` block of a result, from the graph that ran and its timing.

    `useful_flop` are the operations for the real tokens, with each row at its own length; `executed_flop` are those for
    the padded batches. A utilisation is the time that the work would take at the ceiling, as a fraction of the measured
    time of the runtime alone. If `file` is None or its work is unknown, the values are None and the block has a reason.
    """
    block = _nothing()
    if file is None:
        return block | {"reason": NO_GRAPH}
    try:
        work = work_of(file, backend=backend, device=device, precision=precision)
    except InputError as error:
        return block | {"reason": NOT_COUNTED, "detail": str(error)}
    tokens, runtime_s = speed["tokens"], rows / speed["runtime_throughput_per_s"]
    useful = Extent(rows, tokens["real"], tokens["real_pairs"], tokens["batches"])
    padded = Extent(rows, tokens["slots"], tokens["slot_pairs"], tokens["batches"])
    flop, gpu = sum(work.operations(useful).values()), _gpu(device, work)
    block["flop_per_row_mean"] = flop / rows
    block["useful_flop"] = flop
    block["executed_flop"] = sum(work.operations(padded).values())
    block["achieved_flop_per_s"] = flop / runtime_s
    block["bytes_lower_bound"] = work.bytes_moved(useful)
    if gpu:
        sheet = utilisation(work, useful, runtime_s, gpu.ceiling)
        block["datasheet"] = {**sheet, "gpu": gpu.name, "source": gpu.source}
    method: Literal["measured", "datasheet"] = "measured"
    try:
        ceiling = measure(device, frozenset(work.flop))
    except MachineError as error:
        if gpu is None:
            return block | {"reason": NOT_MEASURED, "detail": str(error)}
        ceiling, method = gpu.ceiling, "datasheet"
    block["ceiling"] = {"method": method, "flop_per_s": ceiling.flop_per_s, "bytes_per_s": ceiling.bytes_per_s}
    return {**block, **utilisation(work, useful, runtime_s, ceiling)}


def work_of(file: Path, *, backend: str, device: str, precision: str) -> Work:
    """Return the operations and memory traffic of a graph, in the precisions in which a backend runs it on a device.

    Raises:
        InputError: the work of the graph cannot be counted.
    """
    model = graph.load(file)
    if backend == "torch":
        return count(model).retyped(precision)
    if device == "cpu":
        return count(model, integers=not is_half_qdq(file), runs_as={"fp16": "fp32"})
    # On a GPU, TensorRT runs float32 GEMMs in TF32. ONNX Runtime is configured not to use TF32, and has no integer
    # GEMMs on a GPU.
    return count(model, integers=backend != "ort", runs_as={} if backend == "ort" else {"fp32": "tf32"})


def utilisation(work: Work, extent: Extent, runtime_s: float, ceiling: Ceiling) -> Utilisation:
    """Return which fractions of `runtime_s` the operations and the memory traffic of a pass would take at a ceiling."""
    flop = work.operations(extent)
    compute_s, memory_s = ceiling.compute_s(flop), ceiling.memory_s(work.bytes_moved(extent))
    return {
        "ceiling_flop_per_s": sum(flop.values()) / compute_s,
        "model_flop_utilisation": compute_s / runtime_s,
        "bandwidth_utilisation": memory_s / runtime_s,
        "bound": "compute" if compute_s >= memory_s else "memory",
    }


def _nothing() -> RooflineBlock:
    return {
        "flop_per_row_mean": None,
        "useful_flop": None,
        "executed_flop": None,
        "achieved_flop_per_s": None,
        "ceiling_flop_per_s": None,
        "model_flop_utilisation": None,
        "bytes_lower_bound": None,
        "bandwidth_utilisation": None,
        "bound": None,
        "ceiling": None,
        "datasheet": None,
        "reason": None,
        "detail": None,
    }


def _gpu(device: str, work: Work) -> Gpu | None:
    """Return the data sheet of `cuda:N`; None on a CPU, without a driver, or if no data sheet covers the work."""
    if device == "cpu":
        return None
    try:
        with nvml.open_nvml():
            gpu = gpu_of(nvml.visible_devices()[int(device.partition(":")[2] or 0)].name)
    except (nvml.Unavailable, IndexError):
        return None
    return gpu if gpu and not gpu.ceiling.lacks(work.flop) else None
