"""`--backend auto`: a short trial finds the CPU runtime that runs a bundle fastest on this machine."""

import logging
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from toolchain.base.tensors import Infer
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.probes import probe_texts
from toolchain.errors import MachineError, UsageError
from toolchain.evaluation.stages import run_choices
from toolchain.evaluation.target import Target, find_target
from toolchain.recipe.options import RecipeValues
from toolchain.recipe.tables import AUTO, BACKENDS
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run

log = logging.getLogger(__name__)

# Rows per pass of the trial, and timed passes of each runtime, after one untimed pass. Runtimes take turns, so that a
# change of the clock frequency or of other load affects all of them.
ROWS, ROUNDS = 64, 3


def find_to_run(changes: RecipeValues, place: Path | None, *, prefer_plan: bool = False) -> Target:
    """Return the target that the options name or, with `--backend auto`, the target that is fastest in a short trial.

    The caller must open the target's runtime, because that checks the files which run (see `find_target`).

    Raises:
        UsageError: `auto` was asked for on a GPU.
        ToolchainError: see `find_target`.
    """
    if changes.get("backend") != AUTO:
        return find_target(changes, place, prefer_plan=prefer_plan, runs=True)
    device = changes.get("device") or "auto"
    if device not in ("auto", "cpu"):
        raise UsageError(f"--backend auto: chooses only among CPU runtimes, not on {device}. Name one, such as ort.")
    names = [name for name, one in BACKENDS.items() if one.callers]
    named = {name: {**changes, "device": "cpu", "backend": name} for name in names}
    return _fastest({name: find_target(one, place, runs=True) for name, one in named.items()})


def _fastest(targets: dict[str, Target]) -> Target:
    """Return the target with the highest throughput, and log the speed of each target.

    Raises:
        MachineError: none of the runtimes can be opened on this machine.
    """
    missing: list[str] = []
    with ExitStack() as stack:
        opened: dict[str, Infer] = {}
        for name, target in targets.items():
            try:
                opened[name] = stack.enter_context(open_runtime(name, target.model, **run_choices(target)))
            except MachineError as error:
                missing.append(str(error))
        if not opened:
            raise MachineError(missing[0])
        resolved = next(iter(targets.values())).resolved
        texts = probe_texts(resolved.head.texts_per_row)
        speed = _trial(opened, resolved.encode((texts * ROWS)[:ROWS]))
    best = max(speed, key=lambda name: speed[name][0])
    found = "; ".join(f"{name} {rows:,.0f} rows/s, {ms:.2f} ms for one row" for name, (rows, ms) in speed.items())
    log.info("--backend auto: %s. %s is used.", "; ".join([found, *missing]), best)
    return targets[best]


def _trial(opened: dict[str, Infer], tokens: Tokens) -> dict[str, tuple[float, float]]:
    """Return backend -> throughput in batches, rows/s, and latency of a single row, ms: medians of the timed passes."""
    one = tokens.batch(np.array([0]))
    passes: dict[str, list[float]] = {name: [] for name in opened}
    singles: dict[str, list[float]] = {name: [] for name in opened}
    for turn in range(ROUNDS + 1):
        for name, infer in opened.items():
            seconds = run(infer, tokens).runtime_s
            start = time.perf_counter()
            infer(one)
            single = time.perf_counter() - start
            if turn:
                passes[name].append(seconds)
                singles[name].append(single)
    return {
        name: (len(tokens) / statistics.median(passes[name]), 1000 * statistics.median(singles[name]))
        for name in opened
    }
