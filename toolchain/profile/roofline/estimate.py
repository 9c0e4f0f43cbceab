"""Estimate lower bounds for the inference time of a bundle on any GPU, from its data sheet; nothing is measured."""

import math
from pathlib import Path

from toolchain import graph
from toolchain.bundle import Bundle, last_bundle, open_bundle
from toolchain.bundle.resolved_recipe import resolve_bundle
from toolchain.data.rows import load_rows
from toolchain.engine.cross import compile_kernels
from toolchain.engine.releases import import_release
from toolchain.engine.targets import compute_capabilities
from toolchain.errors import InputError, MachineError, ToolchainError, UsageError
from toolchain.evaluation.target import recorded
from toolchain.profile.roofline.gpus import Gpu, find_gpu
from toolchain.profile.roofline.kernels import RUNS_AS, bounded
from toolchain.profile.roofline.work import Extent, Work, count
from toolchain.recipe.options import RecipeValues
from toolchain.records.roofline import BatchBound, EstimatedBounds, RowLength

# Batch sizes of an estimate, in rows.
BATCHES = (1, 8, 32)

# LENGTH: tokens per row if the task has no data. SAMPLE: number of rows whose mean length is used if it has.
LENGTH, SAMPLE = 128, 2048

KIND = "bound by data sheet, not a measurement"
NO_IDLE_POWER = "idle_power_not_in_data_sheet"


def estimate(
    changes: RecipeValues, *, gpu: str, bundle: Path | None = None, idle_w: float | None = None
) -> EstimatedBounds:
    """Return the shortest time that batches of a bundle can take on `gpu`, a short name of gpus.toml.

    The time is the longer of two: that of all GEMMs at the GPU's peak, and that of reading all weights from its memory,
    except for those that its cache can keep. No run is faster. If TensorRT-RTX is installed and compiles the graph for
    this GPU, `kernels_ms` adds up the bounds of the compiled kernels, with all their memory traffic. That is closer to
    a real run, but not a strict bound: a run may be faster if a large cache keeps a part of the traffic.

    Rows have the mean length of the task's rows if its data are available, else LENGTH tokens. The energy per row is at
    least the idle power `idle_w` times the shortest time. It is at most the power limit times the time of a row; that
    limit is given for a run at the speed of the bound, and a slower run may use more.

    Raises:
        UsageError: the GPU is unknown or lacks the precision, or `idle_w` is not between 0 and its power limit.
        InputError: the bundle cannot be read.
    """
    card = find_gpu(gpu)
    if idle_w is not None and not 0 < idle_w < card.tdp_w:
        raise UsageError(
            f"--idle-power {idle_w:g}: the power must be between 0 and {card.tdp_w:g} W, "
            f"the power limit of {card.name}. Give it in watts."
        )
    opened = open_bundle(bundle or last_bundle(), trust=changes.get("trust"))
    precision = changes.get("precision") or opened.manifest["precision"]
    file, work = _work(opened, precision)
    if missing := card.ceiling.lacks(work.flop):
        known = ", ".join(name for name in card.tera_per_s if name != "tf32")
        raise UsageError(f"--precision {precision}: {card.name} does not compute {missing[0]}. Choose one of {known}.")
    length = _length(opened, changes)
    times, why = _kernel_times(opened, file, card, length["tokens"])
    return {
        "kind": KIND,
        "bundle": str(opened.path),
        "artefact": file,
        "precision": precision,
        "gpu": {"name": card.name, "source": card.source, "tdp_w": card.tdp_w, "idle_w": idle_w},
        "length": length,
        "kernels_reason": why,
        "bounds": [
            _bound(work, card, batch, length["tokens"], idle_w=idle_w, kernels_ms=kernels_ms)
            for batch, kernels_ms in zip(BATCHES, times or (None,) * len(BATCHES), strict=True)
        ],
        "at_least_reason": NO_IDLE_POWER if idle_w is None else None,
    }


def _work(bundle: Bundle, precision: str) -> tuple[str, Work]:
    """Return the name of the bundle's graph in this precision, and its work.

    Without such a graph, the result is for the FP32 graph, whose work is counted as if it ran in `precision`.
    """
    typed = f"model.{precision}.onnx"
    if typed in bundle.manifest["artefacts"]:
        return typed, count(graph.load(bundle.file(typed)), runs_as=RUNS_AS)
    work = count(graph.load(bundle.file("model.onnx")))
    return "model.onnx", work.retyped(RUNS_AS.get(precision, precision))


def _length(bundle: Bundle, changes: RecipeValues) -> RowLength:
    """Return the number of tokens per row, from the task's data if they are on this machine; nothing is downloaded."""
    recipe = recorded(bundle, {**changes, "precision": None})
    resolved = resolve_bundle(
        bundle, recipe, new_task=any(changes.get(key) for key in ("task", "text_column", "label_column"))
    )
    default: RowLength = {"tokens": min(LENGTH, resolved.max_length), "from": "no data at hand"}
    if recipe.data is None and resolved.task.folder is None:
        return default
    try:
        rows = load_rows(resolved.task, recipe.split, **recipe.reading)
    except ToolchainError:
        if changes.get("data"):
            raise
        return default
    rows = rows.sample(min(SAMPLE, len(rows)), seed=recipe.seed)
    mean = math.ceil(resolved.encode(rows.texts).lengths.mean())
    return {"tokens": mean, "from": f"mean of {len(rows)} {recipe.split} rows"}


def _kernel_times(bundle: Bundle, file: str, card: Gpu, length: int) -> tuple[list[float] | None, str | None]:
    """Return (ms, None): the bound of the kernels that TensorRT-RTX compiles a graph to, for each size in BATCHES.

    It is the sum over the kernels of the time of their operations or of their memory traffic at the GPU's peaks,
    whichever is longer. If there are no kernels, return (None, reason in words).
    """
    if file == "model.onnx":
        return None, "the bundle has no graph for TensorRT in this precision"
    try:
        if card.sm not in compute_capabilities(import_release("trt-rtx")):
            return None, f"TensorRT-RTX does not compile for {card.name}"
        model = graph.load(bundle.file(file))
        lists = [compile_kernels(model, card.sm, batch=batch, length=length, where=file) for batch in BATCHES]
        return [sum(bounded(one, card.ceiling)["us"] for one in kernels) / 1e3 for kernels in lists], None
    except (MachineError, InputError) as error:
        return None, str(error)


def _bound(
    work: Work, card: Gpu, batch: int, length: int, *, idle_w: float | None, kernels_ms: float | None
) -> BatchBound:
    """Return the bounds of a batch's time and energy. Operations and memory traffic each give a shortest time."""
    extent = Extent.of([length] * batch)
    flop, moved = work.operations(extent), work.bytes_moved(extent, cache_bytes=int(card.cache_mb * 1e6))
    compute_s, memory_s = card.ceiling.compute_s(flop), card.ceiling.memory_s(moved)
    time_s = max(compute_s, memory_s)
    return {
        "batch": batch,
        "length": length,
        "flop": sum(flop.values()),
        "bytes_lower_bound": moved,
        "compute_ms": 1e3 * compute_s,
        "memory_ms": 1e3 * memory_s,
        "time_ms": 1e3 * time_s,
        "kernels_ms": kernels_ms,
        "bound": "compute" if compute_s >= memory_s else "memory",
        "rows_per_s": batch / time_s,
        "mj_per_row_at_least": idle_w and 1e3 * idle_w * time_s / batch,
        "mj_per_row_at_most_at_this_speed": 1e3 * card.tdp_w * time_s / batch,
    }
