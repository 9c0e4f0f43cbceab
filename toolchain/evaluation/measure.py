"""One runtime on one task: accuracy with its interval, latency, throughput, memory.

The measured pass tokenises each text once, window by window, batches by a budget of padded positions from rows sorted
by length, and puts the logits back in the rows' order. Warm-up is outside every clock.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from toolchain.checkpoint.tokenize import Encode
from toolchain.data.labels import in_task_order
from toolchain.data.metrics import METRICS, Values
from toolchain.data.rows import Text
from toolchain.data.tasks import Task
from toolchain.errors import InputError
from toolchain.evaluation.compare import Predictions
from toolchain.evaluation.statistics import bootstrap_ci95
from toolchain.meters.latency import measure_latency
from toolchain.meters.memory import MemoryMeter
from toolchain.progress import bar
from toolchain.runtimes.batched import Run, run, run_texts
from toolchain.runtimes.distance import Logits
from toolchain.tensors import Infer

BUDGETS = (512, 1024, 2048, 4096)
"""Padded positions a batch to choose from: processors like what fits the cache, GPUs what fills them."""

TRIAL_ROWS = 256
LATENCY_ROWS = 200
WARMUP_CALLS = 3


def choose_budget(infer: Infer, encode: Encode, texts: list[Text], *, seed: int) -> int:
    """Return the budget of BUDGETS that runs a sample of the texts fastest, once each of its shapes has been seen."""
    sample = encode(_sample(texts, TRIAL_ROWS, seed=seed))
    for budget in reversed(BUDGETS):  # the largest first, so that no arena grows later
        run(infer, sample, max_slots=budget)
    times = {budget: run(infer, sample, max_slots=budget).runtime_s for budget in BUDGETS}
    return min(times, key=times.__getitem__)


def _sample(texts: list[Text], count: int, *, seed: int) -> list[Text]:
    chosen = np.random.default_rng(seed).choice(len(texts), min(count, len(texts)), replace=False)
    return [texts[int(row)] for row in chosen]


def measure(
    infer: Infer,
    encode: Encode,
    texts: list[Text],
    *,
    seed: int,
    log: Callable[[str], None],
    device: str = "cpu",
    recording: bool = False,
) -> tuple[Logits, dict[str, Any]]:
    """Return the logits of `texts`, and the speed and memory keys of a result.

    `device` is where `infer` runs. `latency_ms` and `throughput_per_s` are from text to logits;
    `runtime_throughput_per_s` is the model alone. `tokens.lengths` are pairs: so many tokens, so many rows. With
    `recording`, every shape is run once beforehand, for the first time costs what no later one does.

    Raises:
        InputError: a logit is not finite.
    """
    memory = MemoryMeter(device)
    memory.start()
    try:
        logits, speed = _speed(infer, encode, texts, seed=seed, log=log, recording=recording)
    finally:
        peak = memory.stop()
    return logits, speed | {"peak_memory_mb": peak}


def _speed(
    infer: Infer, encode: Encode, texts: list[Text], *, seed: int, log: Callable[[str], None], recording: bool
) -> tuple[Logits, dict[str, Any]]:
    log(f"warming up and choosing a batch size, {len(texts)} rows")
    budget = choose_budget(infer, encode, texts, seed=seed)

    if recording:
        log("recording every shape")
        run_texts(infer, encode, texts, max_slots=budget)
    log(f"running {len(texts)} rows")
    with bar(len(texts), "evaluating", unit="rows") as advance:
        start = time.perf_counter()
        done = run_texts(infer, encode, texts, max_slots=budget, advance=advance)
        wall_s = time.perf_counter() - start
    if not np.isfinite(done.logits).all():
        row = int(np.argmin(np.isfinite(done.logits).all(axis=1)))
        raise InputError(f"row {row + 1}: the model gives {done.logits[row]}. Try another precision.")

    singles = [[text] for text in _sample(texts, LATENCY_ROWS, seed=seed)]
    log(f"timing {len(singles)} rows one by one")

    def one(single: list[Text]) -> None:
        infer(encode(single).batch(np.array([0])))

    for single in singles if recording else singles[:WARMUP_CALLS]:
        one(single)
    latency = measure_latency(one, singles)
    return done.logits, {
        "latency_ms": {**latency, "batch_size": 1},
        "throughput_per_s": len(texts) / wall_s,
        "runtime_throughput_per_s": len(texts) / done.runtime_s,
        "tokens": {**_tokens(done), "batch_slots": budget},
    }


def _tokens(done: Run) -> dict[str, Any]:
    """Return what was real of what ran; attention's work goes by pairs of positions in a row, all else by positions."""
    real = int(done.lengths.sum())
    pairs = {"real_pairs": int((done.lengths**2).sum()), "slot_pairs": done.pairs, "batches": done.batches}
    lengths, rows = np.unique(done.lengths, return_counts=True)
    return {
        "real": real,
        "slots": done.slots,
        "padding_efficiency": real / done.slots,
        **pairs,
        "lengths": [[int(length), int(count)] for length, count in zip(lengths, rows, strict=True)],
    }


def predict(references: Values, logits: Logits, task: Task, model_labels: list[str]) -> Predictions:
    """Return the predicted class of each row, or the predicted number, beside its reference in the model's labels."""
    if task.regression:
        return Predictions(references, logits[:, 0].astype(np.float64), logits)
    ordered_references, ordered = in_task_order(references, logits, task, model_labels)
    return Predictions(ordered_references, ordered.argmax(axis=1), logits)


def share_correct(found: Predictions, task: Task) -> float | None:
    """Return the share of rows that were predicted as they should be; a regression has none."""
    return None if task.regression else float((found.predicted == found.references).mean())


def score(found: Predictions, task: Task, *, seed: int) -> dict[str, Any]:
    """Return `metrics` and `metrics_ci95` of a result."""
    both = found.references, found.predicted
    return {
        "metrics": {name: METRICS[name](*both) for name in task.metrics},
        "metrics_ci95": {name: list(bootstrap_ci95(METRICS[name], *both, seed=seed)) for name in task.metrics},
    }


def agreement(found: Predictions, reference: Predictions, task: Task, *, name: str) -> dict[str, Any]:
    """Return how far predictions are from the reference's; a regression has no labels to agree on."""
    same = None if task.regression else float((found.predicted == reference.predicted).mean())
    return {
        "reference": name,
        "label_agreement": same,
        "max_abs_logit_difference": float(np.abs(found.logits - reference.logits).max()),
    }
