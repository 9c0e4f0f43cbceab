"""Estimate lower bounds of the time of a bundle on any GPU, from the GPU's data sheet; nothing is measured."""

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
from toolchain.recipe.options import RecipeValues
from toolchain.records.kernels import BoundedKernel
from toolchain.records.roofline import BatchBound, EstimatedBounds, RowLength
from toolchain.roofline.gpus import Gpu, find_gpu
from toolchain.roofline.kernels import RUNS_AS, bounded, main_bound
from toolchain.roofline.work import Extent, Flop, Work, count

# Batch sizes, rows.
BATCHES = (1, 8, 32)

# Tokens a row where the task has no data, and the number of rows from which the mean is taken where it has.
LENGTH, SAMPLE = 128, 2048

KIND = "bound by data sheet, not a measurement"
NO_IDLE_POWER = "idle_power_not_in_data_sheet"


def estimate(
    changes: RecipeValues, *, gpu: str, bundle: Path | None = None, idle_w: float | None = None
) -> EstimatedBounds:
    """Return the least time of batches of a bundle on `gpu`, a short name of gpus.toml.

    Where TensorRT-RTX is installed and compiles the graph for this GPU, the time is the sum over its kernels, each the
    longer of its GEMMs at the peak and its memory traffic. Else it is the longer of two: all GEMMs at the peak of the
    GPU, and all weights from its memory, less what its cache keeps.

    Rows have the mean length of the task's rows where its data are available, else LENGTH tokens. Energy a
    row is at most the power limit times the time of a row; at the speed of the bound, that says nothing about a slower
    run. It is at least the idle power `idle_w` times the least time.

    Raises:
        UsageError: the GPU is unknown or lacks the precision, or `idle_w` is not between 0 and its power limit.
        InputError: the bundle cannot be read.
    """
    card = find_gpu(gpu)
    if idle_w is not None and not 0 < idle_w < card.tdp_w:
        raise UsageError(
            f"--idle-power {idle_w:g}: not between 0 and the {card.tdp_w:g} W of {card.name}. Give the power in watts."
        )
    opened = open_bundle(bundle or last_bundle(), trust=changes.get("trust"))
    precision = changes.get("precision") or opened.manifest["precision"]
    file, work = _work(opened, precision)
    if missing := card.ceiling.lacks(work.flop):
        known = ", ".join(name for name in card.tera_per_s if name != "tf32")
        raise UsageError(f"--precision {precision}: {card.name} has no units for {missing[0]}. Choose one of {known}.")
    length = _length(opened, changes)
    bounds, why = _by_kernels(opened, file, card, length["tokens"], idle_w)
    return {
        "kind": KIND,
        "bundle": str(opened.path),
        "artefact": file,
        "precision": precision,
        "gpu": {"name": card.name, "source": card.source, "tdp_w": card.tdp_w, "idle_w": idle_w},
        "length": length,
        "bound_from": "gemms" if bounds is None else "kernels",
        "bound_from_reason": why,
        "bounds": bounds or [_by_gemms(work, card, batch, length["tokens"], idle_w) for batch in BATCHES],
        "at_least_reason": NO_IDLE_POWER if idle_w is None else None,
    }


def _work(bundle: Bundle, precision: str) -> tuple[str, Work]:
    """Return the graph of this precision and its work; else the FP32 graph's work as if it had the precision."""
    typed = f"model.{precision}.onnx"
    if typed in bundle.manifest["artefacts"]:
        return typed, count(graph.load(bundle.file(typed)), runs_as=RUNS_AS)
    work = count(graph.load(bundle.file("model.onnx")))
    return "model.onnx", work.retyped(RUNS_AS.get(precision, precision))


def _length(bundle: Bundle, changes: RecipeValues) -> RowLength:
    """Return the tokens of a row, from local data if there are any; nothing is downloaded."""
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


def _by_kernels(
    bundle: Bundle, file: str, card: Gpu, length: int, idle_w: float | None
) -> tuple[list[BatchBound] | None, str | None]:
    """Return the bounds by the kernels that TensorRT-RTX compiles a graph to, or None and the reason."""
    if file == "model.onnx":
        return None, "the bundle has no graph of this precision in FP16 or INT8"
    try:
        if card.sm not in compute_capabilities(import_release("trt-rtx")):
            return None, f"TensorRT-RTX does not compile for {card.name}"
        model = graph.load(bundle.file(file))
        found = [compile_kernels(model, card.sm, batch=batch, length=length, where=file) for batch in BATCHES]
        lists = [[bounded(kernel, card.ceiling) for kernel in kernels] for kernels in found]
    except (MachineError, InputError) as error:
        return None, str(error)
    return [_of_kernels(one, card, batch, length, idle_w) for one, batch in zip(lists, BATCHES, strict=True)], None


def _of_kernels(kernels: list[BoundedKernel], card: Gpu, batch: int, length: int, idle_w: float | None) -> BatchBound:
    flop: dict[str, float] = {}
    for kernel in kernels:
        if kernel["precision"]:
            name = RUNS_AS.get(kernel["precision"], kernel["precision"])
            flop[name] = flop.get(name, 0.0) + (kernel["operations"] or 0)
    moved = sum(kernel["bytes"] or 0 for kernel in kernels)
    time_s = sum(kernel["us"] for kernel in kernels) / 1e6
    return _batch(flop, moved, card, batch, length, idle_w, time_s=time_s) | {"bound": main_bound(kernels)}


def _by_gemms(work: Work, card: Gpu, batch: int, length: int, idle_w: float | None) -> BatchBound:
    extent = Extent.of([length] * batch)
    moved = work.bytes_moved(extent, cache_bytes=int(card.cache_mb * 1e6))
    return _batch(work.operations(extent), moved, card, batch, length, idle_w)


def _batch(
    flop: Flop, moved: int, card: Gpu, batch: int, length: int, idle_w: float | None, *, time_s: float | None = None
) -> BatchBound:
    """Return the bounds of a batch; without `time_s` it takes the longer of its operations and its traffic."""
    compute_s, memory_s = card.ceiling.compute_s(flop), card.ceiling.memory_s(moved)
    least_s = max(compute_s, memory_s) if time_s is None else compute_s  # a cache may keep what kernels move
    time_s = time_s or least_s
    return {
        "batch": batch,
        "length": length,
        "flop": sum(flop.values()),
        "bytes_lower_bound": moved,
        "compute_ms": 1e3 * compute_s,
        "memory_ms": 1e3 * memory_s,
        "time_ms": 1e3 * time_s,
        "bound": "compute" if compute_s >= memory_s else "memory",
        "rows_per_s": batch / time_s,
        "mj_per_row_at_least": idle_w and 1e3 * idle_w * least_s / batch,
        "mj_per_row_at_most_at_this_speed": 1e3 * card.tdp_w * time_s / batch,
    }
