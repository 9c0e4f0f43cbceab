"""A bundle on a GPU that one does not have: the least time by its data sheet. A bound, not a measurement."""

import math
from pathlib import Path
from typing import Any

from toolchain import graph
from toolchain.bundle import Bundle, last_bundle, open_bundle
from toolchain.bundle.resolved import resolve_bundle
from toolchain.data.rows import load_rows
from toolchain.errors import ToolchainError, UsageError
from toolchain.evaluation.target import recorded
from toolchain.roofline.gpus import Gpu, find_gpu
from toolchain.roofline.work import Extent, Work, count

BATCHES = (1, 8, 32)
LENGTH, SAMPLE = 128, 2048
TENSOR_CORES = {"fp32": "tf32"}
"""What may run a type faster: a bound must hold for it too."""

KIND = "bound by data sheet, not a measurement"
NO_IDLE_POWER = "idle_power_not_in_data_sheet"


def predict(
    changes: dict[str, Any], *, gpu: str, bundle: Path | None = None, idle_w: float | None = None
) -> dict[str, Any]:
    """Return the least time of batches of a bundle on `gpu`, a short name of gpus.toml, as JSON.

    The time is the longer of what the products take at the card's peak and what their weights take from its memory,
    less what its cache holds; rows are as long as the task's are on average where its data are at hand, else of LENGTH
    tokens. Energy a row is at most the card's power limit times the time a row takes: given at the speed of the bound,
    it says nothing of a slower run. It is at least what the card draws at rest, `idle_w`, times the least time.

    Raises:
        UsageError: no such GPU, it lacks the precision, or `idle_w` is not a power below its limit.
        InputError: the bundle cannot be read.
    """
    card = find_gpu(gpu)
    if idle_w is not None and not 0 < idle_w < card.tdp_w:
        raise UsageError(f"--idle-power {idle_w:g}: not between 0 and the {card.tdp_w:g} W of {card.name}. Give watts.")
    opened = open_bundle(bundle or last_bundle(), trust=changes.get("trust"))
    precision = changes.get("precision") or opened.manifest["precision"]
    file, work = _work(opened, precision)
    if missing := card.ceiling.lacks(work.flop):
        known = ", ".join(name for name in card.tera_per_s if name != "tf32")
        raise UsageError(f"--precision {precision}: {card.name} has no units for {missing[0]}. Choose one of {known}.")
    length, why = _length(opened, changes)
    return {
        "kind": KIND,
        "bundle": str(opened.path),
        "artefact": file,
        "precision": precision,
        "gpu": {"name": card.name, "source": card.source, "tdp_w": card.tdp_w, "idle_w": idle_w},
        "length": {"tokens": length, "from": why},
        "bounds": [_bound(work, card, batch, length, idle_w) for batch in BATCHES],
        "at_least_reason": NO_IDLE_POWER if idle_w is None else None,
    }


def _work(bundle: Bundle, precision: str) -> tuple[str, Work]:
    """Return the work of the bundle's graph of this precision; or of its FP32 graph, as if all of it were in it."""
    typed = f"model.{precision}.onnx"
    if typed in bundle.manifest["artefacts"]:
        return typed, count(graph.load(bundle.file(typed)), runs_as=TENSOR_CORES)
    work = count(graph.load(bundle.file("model.onnx")))
    return "model.onnx", work.retyped(TENSOR_CORES.get(precision, precision))


def _length(bundle: Bundle, changes: dict[str, Any]) -> tuple[int, str]:
    """Return how many tokens a row has, and where that is from; the hub is not asked."""
    recipe = recorded(bundle, {**changes, "precision": None})
    resolved = resolve_bundle(
        bundle, recipe, new_task=any(changes.get(key) for key in ("task", "text_column", "label_column"))
    )
    default = min(LENGTH, resolved.max_length), "no data at hand"
    if recipe.data is None and resolved.task.folder is None:
        return default
    try:
        rows = load_rows(resolved.task, recipe.split, data=recipe.data)
    except ToolchainError:
        if changes.get("data"):
            raise
        return default
    rows = rows.sample(min(SAMPLE, len(rows)), seed=recipe.seed)
    return math.ceil(resolved.encode(rows.texts).lengths.mean()), f"mean of {len(rows)} {recipe.split} rows"


def _bound(work: Work, card: Gpu, batch: int, length: int, idle_w: float | None) -> dict[str, Any]:
    extent = Extent.of([length] * batch)
    flop = work.operations(extent)
    moved = work.bytes_moved(extent, cache_bytes=int(card.cache_mb * 1e6))
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
        "bound": "compute" if compute_s >= memory_s else "memory",
        "rows_per_s": batch / time_s,
        "mj_per_row_at_least": idle_w and 1e3 * idle_w * time_s / batch,
        "mj_per_row_at_most_at_this_speed": 1e3 * card.tdp_w * time_s / batch,
    }
