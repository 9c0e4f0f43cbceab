"""Measures the speed of generation, and the energy if asked for.

The first token and the later steps are measured separately, with each kind of cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from toolchain.base.amounts import counted
from toolchain.base.progress import track
from toolchain.energy.calls import Measure
from toolchain.energy.record import NOT_REQUESTED
from toolchain.generate.generator import Generated, Generator, pad_id
from toolchain.generate.prompts import PromptBatch, batches, check_room, encode
from toolchain.generate.settings import Settings
from toolchain.records.generation import CacheRatio, CacheRun, Decode, GeneratedText, Generation, Prefill
from toolchain.runtimes.bandwidth import measure_bandwidth
from toolchain.runtimes.environment import describe

# New tokens per warm-up call: one for the first pass, one for a step with a new cache, and one for a step with a used
# cache.
WARM_UP_TOKENS = 3


@dataclass
class Timed:
    """What was measured with one kind of cache.

    `rounds` has the result of every batch, by round. `first_j` is the energy of all batches with one new token per
    prompt, in joules, and `whole_j` with all new tokens. `reason` is a code that says why they are None.
    """

    rounds: list[list[Generated]] = field(default_factory=list)
    first_j: float | None = None
    whole_j: float | None = None
    reason: str | None = NOT_REQUESTED

    @property
    def all(self) -> list[Generated]:
        """The results of the batches of all rounds."""
        return [one for done in self.rounds for one in done]

    @property
    def tokens(self) -> list[list[int]]:
        """The generated ids of each prompt, from the first round."""
        return [row for one in self.rounds[0] for row in one.tokens]

    @property
    def seconds(self) -> float:
        """The seconds of a round: the median over the rounds."""
        return float(np.median([sum(one.seconds for one in done) for done in self.rounds]))


def run(
    model: Generator,
    prompts: Sequence[str],
    settings: Settings,
    *,
    place: str = "--prompt",
    energy: Measure | None = None,
    bandwidth: Callable[[str], float | None] = measure_bandwidth,
    log: Callable[[str], None] = lambda line: None,
) -> Generation:
    """Generate a continuation of each prompt greedily, and measure it.

    Args:
        model: an open language model.
        prompts: texts, given to the model as they are.
        settings: number of new tokens, kinds of cache, batch size and rounds.
        place: where the prompts come from, for error messages.
        energy: function that calls its argument again and again without a pause, and returns the joules of one call, or
            a reason code if they could not be measured; None if energy was not asked for.
        bandwidth: returns the memory bandwidth of a device in bytes/s, or None if it cannot be measured.
        log: takes one line of text about the progress.

    Raises:
        InputError: a prompt cannot be used.
        UsageError: a prompt and its new tokens exceed the model's positions.
    """
    rows = encode(model.tokenizer, prompts, source=place)
    check_room(rows, settings.max_new_tokens, model.positions, source=place)
    pad = pad_id(model.tokenizer)
    parts = list(batches(rows, settings.batch_size, pad))
    log(f"{model.name}: timing {counted(len(rows), 'prompt')} in batches of {settings.batch_size} on {model.device}")
    timed = _time(model, parts, settings, pad)
    if energy:
        for name, one in timed.items():
            log(f"energy: measuring the first token, then all tokens, with cache {name}")
            _add_energy(one, energy, model, parts, settings, pad, name)
    texts = _texts(model, prompts, rows, timed[settings.caches[0]])
    return _record(model, settings, timed, parts, texts, bandwidth(model.device))


def _record(
    model: Generator,
    settings: Settings,
    timed: dict[str, Timed],
    parts: list[PromptBatch],
    texts: list[GeneratedText],
    bytes_per_s: float | None,
) -> Generation:
    runs = [_cache_run(name, one, parts, model.weight_bytes, bytes_per_s) for name, one in timed.items()]
    return {
        "model": model.name,
        "backend": model.backend,
        "device": model.device,
        "precision": model.precision,
        "batch_size": settings.batch_size,
        "max_new_tokens": settings.max_new_tokens,
        "rounds": settings.rounds,
        "weight_bytes_per_step": model.weight_bytes,
        "memory_gigabytes_per_s": bytes_per_s and bytes_per_s / 1e9,
        "texts": texts,
        "runs": runs,
        "ratios": _ratios(timed, runs, parts),
        "environment": describe(),
    }


def _time(model: Generator, parts: list[PromptBatch], settings: Settings, pad: int) -> dict[str, Timed]:
    """Time every batch with each kind of cache, after a warm-up of each kind.

    The kinds take turns at each batch, so that a slow moment of the machine affects all of them alike.
    """
    for name in settings.caches:
        model.generate(parts[0], cache=name, new=min(WARM_UP_TOKENS, settings.max_new_tokens), pad=pad)
    timed = {name: Timed() for name in settings.caches}
    for _ in track(range(settings.rounds), total=settings.rounds, text="generating"):
        for one in timed.values():
            one.rounds.append([])
        for part in parts:
            for name, one in timed.items():
                one.rounds[-1].append(model.generate(part, cache=name, new=settings.max_new_tokens, pad=pad))
    return timed


def _add_energy(
    timed: Timed,
    energy: Measure,
    model: Generator,
    parts: list[PromptBatch],
    settings: Settings,
    pad: int,
    cache: str,
) -> None:
    """Measure the energy of all batches with one new token per prompt, and then with all new tokens."""

    def work(new: int) -> Callable[[], object]:
        return lambda: [model.generate(part, cache=cache, new=new, pad=pad) for part in parts]

    timed.first_j, timed.reason = energy(work(1))
    if timed.reason is None:
        timed.whole_j, timed.reason = energy(work(settings.max_new_tokens))


def _cache_run(name: str, timed: Timed, parts: list[PromptBatch], weights: int, bytes_per_s: float | None) -> CacheRun:
    generated = sum(map(len, timed.tokens))
    kept = timed.rounds[0][0].cache_bytes
    return {
        "cache": name,
        "seconds": timed.seconds,
        "generated_tokens": generated,
        "seconds_per_token": timed.seconds / generated,
        "prefill": _prefill(timed, parts),
        "decode": _decode(timed, parts, weights, kept, bytes_per_s),
        "kv_cache_bytes_per_token": kept,
        "per_generated_token_j": timed.whole_j and timed.whole_j / generated,
        "energy_reason": timed.reason,
    }


def _prefill(timed: Timed, parts: list[PromptBatch]) -> Prefill:
    firsts = [one.first_s for one in timed.all]
    tokens = sum(part.tokens for part in parts)
    p50, p99 = np.percentile(firsts, (50, 99)).tolist()
    return {
        "first_token_ms_p50": 1e3 * p50,
        "first_token_ms_p99": 1e3 * p99,
        "tokens_per_s": tokens * len(timed.rounds) / sum(firsts),
        "j_per_token": timed.first_j and timed.first_j / tokens,
    }


def _decode(
    timed: Timed, parts: list[PromptBatch], weights: int, kept: int | None, bytes_per_s: float | None
) -> Decode:
    steps = [step for one in timed.all for step in one.steps_s]
    later = sum(len(row) - 1 for row in timed.tokens)
    made: Decode = {
        "steps": len(steps),
        "step_ms_p50": None,
        "step_ms_p99": None,
        "tokens_per_s": None,
        "bytes_per_step": None,
        "gigabytes_per_s": None,
        "bandwidth_share": None,
        "j_per_token": None,
    }
    if not steps:
        return made
    p50, p99 = np.percentile(steps, (50, 99)).tolist()
    made["step_ms_p50"], made["step_ms_p99"] = 1e3 * p50, 1e3 * p99
    made["tokens_per_s"] = later * len(timed.rounds) / sum(steps)
    if kept is not None:
        made["bytes_per_step"] = moved = weights + round(kept * _mean_positions(timed, parts))
        made["gigabytes_per_s"] = moved / p50 / 1e9
        made["bandwidth_share"] = bytes_per_s and moved / p50 / bytes_per_s
    if timed.first_j is not None and timed.whole_j is not None and later:
        made["j_per_token"] = (timed.whole_j - timed.first_j) / later
    return made


def _mean_positions(timed: Timed, parts: list[PromptBatch]) -> float:
    """Return the number of positions of a decode step's batch, padded ones included, as the mean over the steps."""
    found = [
        part.ids.size + len(part.ids) * step
        for part, one in zip(parts, timed.rounds[0], strict=True)
        for step in range(1, len(one.steps_s) + 1)
    ]
    return float(np.mean(found))


def _ratios(timed: dict[str, Timed], runs: list[CacheRun], parts: list[PromptBatch]) -> list[CacheRatio]:
    """Return the comparison of each kind of cache with `none`; an empty list if `none` was not timed."""
    if "none" not in timed:
        return []
    none = timed["none"]
    return [
        {
            "cache": run["cache"],
            "measured": none.seconds / run["seconds"],
            "predicted": predict_ratio(timed[run["cache"]], parts),
            "tokens_equal": none.tokens == timed[run["cache"]].tokens,
        }
        for run in runs
        if run["cache"] != "none"
    ]


def predict_ratio(timed: Timed, parts: list[PromptBatch]) -> float:
    """Return the time without a cache divided by the time with it, predicted from the numbers of positions.

    Let c be the time of one position in the first pass, d the time of a decode step, P the positions of the prompt, and
    N the number of passes. The time is sum(c (P + i) for i < N) without a cache, and c P + (N - 1) d with it. The
    result is the median over the rounds.
    """
    ratios = []
    for done in timed.rounds:
        without = 0.0
        for part, one in zip(parts, done, strict=True):
            length, passes = part.ids.shape[1], 1 + len(one.steps_s)
            without += sum(one.first_s / length * (length + i) for i in range(passes))
        ratios.append(without / sum(one.seconds for one in done))
    return float(np.median(ratios))


def _texts(model: Generator, prompts: Sequence[str], rows: list[list[int]], timed: Timed) -> list[GeneratedText]:
    ended = [one for done in timed.rounds[0] for one in done.ended]
    return [
        {
            "prompt": prompt,
            "text": model.tokenizer.decode(tokens, skip_special_tokens=True),
            "prompt_tokens": len(row),
            "tokens": tokens,
            "ended": "eos" if end else "length",
        }
        for prompt, row, tokens, end in zip(prompts, rows, timed.tokens, ended, strict=True)
    ]
