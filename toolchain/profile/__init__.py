"""Time and energy of a backend by part of the model: where a call goes, from text to logits."""

import logging
import statistics
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolchain.bundle.resolved import ResolvedRecipe
from toolchain.checkpoint.tokenize import budget_batches
from toolchain.data.rows import Text, load_rows
from toolchain.energy.calls import Measure
from toolchain.errors import ToolchainError, UsageError
from toolchain.evaluation.measure import choose_budget
from toolchain.evaluation.target import Target, find_target
from toolchain.profile.apportion import ROUNDS, Rounds, apportion, measure_variants
from toolchain.profile.groups import GROUPS, HOST, PARTS
from toolchain.profile.nsys import nsys_command
from toolchain.profile.probes import PROBES
from toolchain.profile.spans import rows
from toolchain.profile.timed import LAUNCHES, Timed, milliseconds, time_calls
from toolchain.profile.trace import write_trace
from toolchain.profile.variants import Load, open_variants, whole
from toolchain.runtimes import open_runtime
from toolchain.runtimes.environment import describe
from toolchain.runtimes.parity import probe_texts

log = logging.getLogger(__name__)

SCHEMA = 1
ROWS = 512
"""Texts to make batches of: the middle one of these batches is profiled."""


def profile(
    place: Path | None,
    changes: dict[str, Any],
    *,
    joules_per_call: Measure | None = None,
    rounds: int = ROUNDS,
    trace: Path | None = None,
    tell: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Return where the time and the energy of one batch go, by group and by node.

    Args:
        place: a bundle; the one built last if None.
        changes: options as in a recipe: backend, device, file and the like.
        joules_per_call: runs work in continuous load and returns (joules a call, None) or (None, reason code).
        rounds: how often each part is taken away.
        trace: where to write the profiled calls as a Chrome trace.
        tell: takes lines on how far it is.

    Raises:
        ToolchainError: see errors.py.
    """
    if (asked := changes.get("backend") or "ort") not in PROBES:
        raise UsageError(f"--backend {asked}: has no profiler here. Choose {', '.join(PROBES)}.")
    target = find_target(changes, place)
    load, about = _load(target, tell)
    tell(f"timing {target.backend} on {target.device}, with its profiler and without")
    timed = time_calls(target, load)
    if trace:
        write_trace(trace, timed.calls, title=f"toolchain: {target.backend} {target.precision} on {target.device}")
    by_profiler, seed = timed.clock != LAUNCHES, target.resolved.recipe.seed

    def ablate(measure: Measure) -> Rounds:
        with open_variants(target, load, timed.groups) as variants:
            return measure_variants(whole(target, load), variants, measure, rounds=rounds, seed=seed, tell=tell)

    ms = timed.groups if by_profiler else _ablated_ms(ablate(_milliseconds), timed)
    energy = apportion(ms, ablate(joules_per_call) if joules_per_call else None)
    how = {"time_method": "profiler" if by_profiler else "ablation", "seed": seed}
    layers = rows(timed.calls) if by_profiler else []
    return {
        **_about(target),
        **about,
        **timed.sums(),
        **how,
        **_joined(ms, energy),
        "layers": layers,
        "trace": str(trace) if trace else None,
    }


def _load(target: Target, tell: Callable[[str], None]) -> tuple[Load, dict[str, Any]]:
    """Return the batch in the middle of those that an evaluation makes, and what it is."""
    resolved = target.resolved
    texts, origin = _texts(resolved)
    tell(f"choosing a batch size, {len(texts)} rows")
    choices = {"device": target.device, "precision": target.precision}
    with open_runtime(target.backend, target.model, **choices) as infer:
        budget = choose_budget(infer, resolved.encode, texts, seed=resolved.recipe.seed)
    tokens = resolved.encode(texts)
    batches = list(budget_batches(tokens.lengths, max_slots=budget))
    middle = batches[len(batches) // 2]
    lengths = tokens.lengths[middle]
    load = Load(resolved.encode, [texts[int(row)] for row in middle])
    slots = int(lengths.max()) * len(middle)
    return load, {
        "rows": len(middle),
        "rows_from": origin,
        "tokens": {"real": int(lengths.sum()), "slots": slots, "length": int(lengths.max()), "batch_slots": budget},
    }


def _texts(resolved: ResolvedRecipe) -> tuple[list[Text], str]:
    """Return texts of the split that is evaluated, or built-in ones where its data are not at hand."""
    if resolved.recipe.data is not None or resolved.task.folder is not None:
        with suppress(ToolchainError):
            found = load_rows(resolved.task, resolved.recipe.split, data=resolved.recipe.data).sample(
                ROWS, seed=resolved.recipe.seed
            )
            return found.texts, f"the {resolved.recipe.split} split"
    texts = probe_texts(len(resolved.task.text_columns))
    return texts * (ROWS // len(texts)), "built-in sentences"


def _milliseconds(work: Callable[[], object]) -> tuple[float | None, str | None]:
    """Return the median time of a call: what is measured where a profiler cannot see kernels run."""
    return statistics.median(milliseconds(work)), None


def _ablated_ms(found: Rounds, timed: Timed) -> dict[str, float]:
    """Return milliseconds a call by group: the host's by its clock, the model's by differences.

    A difference below 0 is too small to be seen.
    """
    known = {group: [value for value in found.groups.get(group, []) if value is not None] for group in PARTS}
    ms = {group: timed.groups[group] for group in HOST}
    ms |= {group: max(0.0, statistics.fmean(values)) for group, values in known.items() if values}
    ms["other"] = max(0.0, statistics.median(timed.wall_ms) - sum(ms.values()))
    return ms


def _joined(ms: dict[str, float], energy: dict[str, Any]) -> dict[str, Any]:
    """Return the groups in their order, with share and energy, the remainder, and the whole."""
    total = sum(ms.values())
    groups = [
        {"group": group, "ms": ms[group], "share": ms[group] / total, **energy["groups"][group]}
        for group in GROUPS
        if group in ms
    ]
    return {"groups": groups, "remainder": energy["remainder"], "whole": energy["whole"]}


def _about(target: Target) -> dict[str, Any]:
    """Return what was profiled, where and when, and how to profile it under Nsight Systems."""
    bundle = str(target.bundle.path) if target.bundle else None
    command = [
        "toolchain",
        "profile",
        *([bundle] if bundle else ["-m", target.resolved.source.name]),
        "--backend",
        target.backend,
        "--device",
        target.device,
    ]
    return {
        "schema": SCHEMA,
        "model": target.resolved.source.name,
        "task": target.resolved.task.name,
        "bundle": bundle,
        "backend": target.backend,
        "device": target.device,
        "precision": target.precision,
        "artefact": target.artefact,
        "nsys_command": nsys_command(command) if target.device != "cpu" else None,
        "environment": describe(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
