"""Profile a backend: time and energy of one batch, from text to logits, by group.

A group is a part of the model, such as attention, or work on the host, such as tokenising (groups.py).
"""

import logging
import statistics
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.checkpoint.tokenize import batches
from toolchain.data.probes import probe_texts
from toolchain.data.rows import Text
from toolchain.energy.calls import Measure
from toolchain.errors import ToolchainError, UsageError
from toolchain.evaluation.measure import choose_budget
from toolchain.evaluation.target import Target, find_target
from toolchain.profile.apportion import ROUNDS, Rounds, apportion, measure_variants
from toolchain.profile.groups import GROUPS, HOST, PARTS
from toolchain.profile.nsys import nsys_command
from toolchain.profile.profilers import PROFILERS
from toolchain.profile.spans import layer_times
from toolchain.profile.timed import LAUNCHES, Timed, milliseconds, time_calls
from toolchain.profile.trace import write_trace
from toolchain.profile.variants import Workload, open_variants, whole
from toolchain.recipe.options import RecipeValues
from toolchain.records.profile import GroupEnergy, GroupRecord, ProfiledBatch, ProfiledTarget, ProfileResult
from toolchain.runtimes import open_runtime
from toolchain.runtimes.environment import describe

log = logging.getLogger(__name__)

# Version of the format of a profile.
SCHEMA: Final = 1

# Number of texts from which batches are formed. The batch in the middle, which has a typical length, is profiled.
ROWS = 512


def profile(
    place: Path | None,
    changes: RecipeValues,
    *,
    joules_per_call: Measure | None = None,
    rounds: int = ROUNDS,
    trace: Path | None = None,
    progress: Callable[[str], None] = log.info,
) -> ProfileResult:
    """Return the time and the energy of one batch by group, and its time by node.

    Args:
        place: folder of a bundle; None for the last one built.
        changes: options as in a recipe, such as backend, device and file.
        joules_per_call: runs a function under continuous load and returns (joules per call, None) or (None, reason
            code); None to measure no energy.
        rounds: number of rounds; in each, the whole call and every variant without a group are measured once.
        trace: file for a Chrome trace of the profiled calls; None to write no trace.
        progress: called with each line of progress.

    Raises:
        ToolchainError: see errors.py.
    """
    target = _target(changes, place)
    load, batch = _workload(target, progress)
    progress(f"timing {target.backend} on {target.device}, with its profiler and without")
    timed = time_calls(target, load)
    if trace:
        write_trace(trace, timed.calls, title=f"toolchain: {target.backend} {target.precision} on {target.device}")
    by_profiler, seed = timed.clock != LAUNCHES, target.resolved.recipe.seed

    def ablate(measure: Measure) -> Rounds:
        with open_variants(target, load, timed.groups) as variants:
            return measure_variants(whole(target, load), variants, measure, rounds=rounds, seed=seed, progress=progress)

    ms = timed.groups if by_profiler else _ablated_ms(ablate(_milliseconds), timed)
    energy = apportion(ms, ablate(joules_per_call) if joules_per_call else None)
    return {
        **_about(target),
        **batch,
        **timed.sums(),
        "time_method": "profiler" if by_profiler else "ablation",
        "seed": seed,
        "groups": _groups(ms, energy.groups),
        "remainder": energy.remainder,
        "whole": energy.whole,
        "layers": layer_times(timed.calls) if by_profiler else [],
        "trace": str(trace) if trace else None,
    }


def _target(changes: RecipeValues, place: Path | None) -> Target:
    """Return the artefact and backend that are profiled, after checking that the backend has a profiler.

    Raises:
        ToolchainError: see errors.py.
    """
    if (asked := changes.get("backend") or "ort") not in PROFILERS:
        raise UsageError(f"--backend {asked}: this backend cannot be profiled. Choose one of {', '.join(PROFILERS)}.")
    target = find_target(changes, place)
    if target.bundle:
        target.bundle.require_one_model("profile")
    return target


def _workload(target: Target, progress: Callable[[str], None]) -> tuple[Workload, ProfiledBatch]:
    """Return the batch to profile, which is the middle one of those that an evaluation forms, and its description."""
    resolved = target.resolved
    texts, origin = _texts(resolved)
    progress(f"choosing a batch size with {len(texts)} rows")
    choices = {"device": target.device, "precision": target.precision}
    with open_runtime(target.backend, target.model, **choices) as infer:
        budget = choose_budget(infer, resolved.encode, texts, seed=resolved.recipe.seed)
    tokens = resolved.encode(texts)
    plan = list(batches(tokens, max_slots=budget))
    middle = plan[len(plan) // 2]
    lengths = tokens.lengths[middle]
    load = Workload(resolved.encode, [texts[int(row)] for row in middle])
    slots = int(lengths.max()) * len(middle)
    return load, {
        "rows": len(middle),
        "rows_from": origin,
        "tokens": {"real": int(lengths.sum()), "slots": slots, "length": int(lengths.max()), "batch_slots": budget},
    }


def _texts(resolved: ResolvedRecipe) -> tuple[list[Text], str]:
    """Return the texts to run and where they are from: the evaluated split, or built-in sentences without its data."""
    if resolved.has_local_rows:
        with suppress(ToolchainError):
            found = resolved.rows(resolved.recipe.split).sample(ROWS, seed=resolved.recipe.seed)
            return found.texts, f"the {resolved.recipe.split} split"
    texts = probe_texts(resolved.head.texts_per_row)
    return texts * (ROWS // len(texts)), "built-in sentences"


def _milliseconds(work: Callable[[], object]) -> tuple[float | None, str | None]:
    """Return (median time of a call in ms, None).

    This is a `Measure` of time instead of joules, for ablation on backends whose profiler does not time kernels.
    """
    return statistics.median(milliseconds(work)), None


def _ablated_ms(found: Rounds, timed: Timed) -> dict[str, float]:
    """Return the time of each group in ms per call, where the profiler does not time kernels.

    Work on the host has the time of the host's clock; parts of the model have the mean difference by ablation. A
    negative difference is noise around a small time, so it becomes 0. `other` is the rest of the call.
    """
    known = {group: [value for value in found.groups.get(group, []) if value is not None] for group in PARTS}
    ms = {group: timed.groups[group] for group in HOST}
    ms |= {group: max(0.0, statistics.fmean(values)) for group, values in known.items() if values}
    ms["other"] = max(0.0, statistics.median(timed.wall_ms) - sum(ms.values()))
    return ms


def _groups(ms: dict[str, float], energy: dict[str, GroupEnergy]) -> list[GroupRecord]:
    """Return, for each group in the order of GROUPS, its time, its fraction of the total time, and its energy."""
    total = sum(ms.values())
    return [
        {"group": group, "ms": ms[group], "share": ms[group] / total, **energy[group]}
        for group in GROUPS
        if group in ms
    ]


def _about(target: Target) -> ProfiledTarget:
    """Return what was profiled, where and when, and the command for Nsight Systems."""
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
