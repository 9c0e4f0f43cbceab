"""The measurement of one runtime on one task: accuracy with its interval, latency, throughput and memory.

The timed pass tokenizes each text once, a window of rows at a time. It sorts the rows of a window by length, makes
batches that have at most a fixed number of positions, padding included (the budget), and returns the logits in the
order of the rows. Warm-up runs are not timed.
"""

import time
from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from toolchain.base.progress import bar, track
from toolchain.base.tensors import Infer, Logits
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Encode
from toolchain.data.metrics import METRICS
from toolchain.data.rows import Text
from toolchain.errors import InputError
from toolchain.evaluation.statistics import metric_ci95
from toolchain.heads.contract import Head
from toolchain.heads.predictions import Predictions, same
from toolchain.meters.contention import ContentionMeter
from toolchain.meters.latency import measure_latency
from toolchain.meters.memory import MemoryMeter
from toolchain.records.result import Agreement, ChangedRow, MostFrequent, Scores, Speed, Timing, TokenCounts
from toolchain.runtimes.batched import Run, run, run_texts

# Limits of positions per batch, padding included, among which the fastest is chosen. CPUs are fastest with batches that
# fit the cache, GPUs with large batches.
BUDGETS = (512, 1024, 2048, 4096)

# Rows on which the budget is chosen: a few batches of the largest budget.
TRIAL_ROWS = 256

# Number of rows that are timed one by one. With 200, the 99th percentile is the second or third largest time.
LATENCY_ROWS = 200

# Untimed calls before the timed ones, so that caches and allocators have settled.
WARMUP_CALLS = 3

# Most rows whose label differs from FP32's that a result lists, and most characters of each text.
SHOWN_ROWS = 20
SHOWN_CHARACTERS = 300


# Takes texts and their numbers of tokens; returns which texts were truncated, bool [rows].
FindCut = Callable[[list[Text], Indices], NDArray[np.bool_]]


def choose_budget(infer: Infer, encode: Encode, texts: list[Text], *, seed: int) -> int:
    """Return the limit of positions per batch (padding included) with which a sample of the texts runs fastest.

    The limit is one of BUDGETS. Each of them runs the sample once to warm up and once for the measurement.
    """
    sample = encode(_sample(texts, TRIAL_ROWS, seed=seed))
    warm_up = reversed(BUDGETS)  # largest first, so that memory arenas do not grow later
    times = {}
    for budget in track([*warm_up, *BUDGETS], total=2 * len(BUDGETS), text="choosing a batch size"):
        times[budget] = run(infer, sample, max_slots=budget).runtime_s  # the second pass replaces the warm-up's time
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
    warm_up_all: bool = False,
    find_cut: FindCut | None = None,
) -> tuple[Logits, Speed]:
    """Return the logits of `texts`, float32 [rows, classes], and the entries of a result for speed and memory.

    Args:
        infer: the open runtime.
        encode: the function that turns texts into what `infer` takes.
        texts: all rows.
        seed: seed of the random samples of rows on which the batch size is chosen and the latency is measured.
        log: called with each line of progress.
        device: the device that `infer` runs on, whose peak memory is measured.
        warm_up_all: run every shape once before the measurement, because the first run of a shape captures a CUDA
            graph.
        find_cut: the function that tells which rows were truncated, to count them. Without it they are not counted.

    Raises:
        InputError: the model computes a logit that is NaN or infinite.
    """
    memory, contention = MemoryMeter(device), ContentionMeter()
    memory.start()
    contention.start()
    try:
        done, speed = _speed(infer, encode, texts, seed=seed, log=log, warm_up_all=warm_up_all)
        waited = contention.stop()
    finally:
        peak = memory.stop()
    if find_cut:
        speed["tokens"]["truncated_rows"] = int(find_cut(texts, done.lengths).sum())
    return done.logits, {**speed, "peak_memory_mb": peak, "contention": waited}


def _speed(
    infer: Infer, encode: Encode, texts: list[Text], *, seed: int, log: Callable[[str], None], warm_up_all: bool
) -> tuple[Run, Timing]:
    log(f"warming up and choosing a batch size, {min(TRIAL_ROWS, len(texts))} rows")
    budget = choose_budget(infer, encode, texts, seed=seed)

    if warm_up_all:
        log("capturing a CUDA graph of every shape")
        run_texts(infer, encode, texts, max_slots=budget)
    log(f"running {len(texts)} rows")
    with bar(len(texts), "evaluating", unit="rows") as advance:
        start = time.perf_counter()
        done = run_texts(infer, encode, texts, max_slots=budget, advance=advance)
        wall_s = time.perf_counter() - start
    if not np.isfinite(done.logits).all():
        row = int(np.argmin(np.isfinite(done.logits).all(axis=1)))
        raise InputError(
            f"row {row + 1}: the model computes the logits {done.logits[row]}, which are not all finite. "
            "Try another precision."
        )

    singles = [[text] for text in _sample(texts, LATENCY_ROWS, seed=seed)]
    log(f"timing {len(singles)} rows one by one")

    def one(single: list[Text]) -> None:
        infer(encode(single).batch(np.array([0])))

    for single in singles if warm_up_all else singles[:WARMUP_CALLS]:
        one(single)
    latency = measure_latency(one, track(singles, total=len(singles), text="timing rows"))
    return done, {
        "latency_ms": {**latency, "batch_size": 1},
        "throughput_per_s": len(texts) / wall_s,
        "runtime_throughput_per_s": len(texts) / done.runtime_s,
        "tokens": _tokens(done, budget),
    }


def _tokens(done: Run, budget: int) -> TokenCounts:
    """Return how many real tokens, positions and pairs of positions a pass computed, and the lengths of its rows.

    Positions include padding. The work of attention grows with the pairs of positions in a row, all other work with the
    positions.
    """
    real = int(done.lengths.sum())
    lengths, rows = np.unique(done.lengths, return_counts=True)
    return {
        "real": real,
        "slots": done.slots,
        "padding_efficiency": real / done.slots,
        "real_pairs": int((done.lengths**2).sum()),
        "slot_pairs": done.pairs,
        "batches": done.batches,
        "lengths": [[int(length), int(count)] for length, count in zip(lengths, rows, strict=True)],
        "batch_slots": budget,
    }


def share_correct(found: Predictions) -> float | None:
    """Return the fraction of rows whose prediction equals the reference; None if predictions are not labels."""
    right = same(found.predicted, found.references)
    return None if right is None else float(right.mean())


def most_frequent(found: Predictions) -> MostFrequent | None:
    """Return the accuracy, and that of always predicting the most frequent label; None if predictions are numbers."""
    right = share_correct(found)
    if right is None:
        return None
    _, counts = np.unique(found.references, axis=0, return_counts=True)
    return {"share": float(counts.max() / len(found.references)), "accuracy": right}


def score(found: Predictions, head: Head, *, seed: int) -> Scores:
    """Return the scores of predictions: the task's metrics with their 95 % intervals, and figures for each label."""
    both, per_label = (found.references, found.predicted), head.per_label(found)
    scores: Scores = {
        "labels": head.names,
        "most_frequent": most_frequent(found),
        "metrics": {name: METRICS[name](*both) for name in head.task.metrics},
        "metrics_ci95": {name: list(metric_ci95(name, *both, seed=seed)) for name in head.task.metrics},
    }
    return scores if per_label is None else {**scores, "per_label": per_label}


def agreement(found: Predictions, reference: Predictions, head: Head, *, name: str) -> Agreement:
    """Return how well predictions agree with those of a reference model, which the result calls `name`.

    The result has the fraction of equal labels, the largest difference of a logit, and the figures that `head` adds.
    """
    unchanged = same(found.predicted, reference.predicted)
    agreed = {
        "reference": name,
        "label_agreement": None if unchanged is None else float(unchanged.mean()),
        "max_abs_logit_difference": float(np.abs(found.logits - reference.logits).max()),
    }
    return cast(Agreement, {**agreed, **head.agreement(found, reference)})


def changed_rows(found: Predictions, reference: Predictions, texts: list[Text], head: Head) -> list[ChangedRow] | None:
    """Return the first SHOWN_ROWS rows whose label differs from the reference's, with their shortened texts.

    The result is None if predictions are not labels, as those of a regression.
    """
    unchanged = same(found.predicted, reference.predicted)
    if unchanged is None:
        return None
    return [
        {
            "row": row,
            "text": shorten(" | ".join(texts[row])),
            "label": head.shown(found.references[row]),
            "reference": head.shown(reference.predicted[row]),
            "predicted": head.shown(found.predicted[row]),
        }
        for row in np.flatnonzero(~unchanged)[:SHOWN_ROWS].tolist()
    ]


def shorten(text: str) -> str:
    """Return a text of at most SHOWN_CHARACTERS characters; an ellipsis marks what was cut."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
