"""Compares records of `generate --backend openai`, such as those of one server on 1 GPU and another on 2 GPUs.

Each figure was measured once, so the ratios have no confidence interval.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from toolchain.base.files import read_json
from toolchain.errors import InputError
from toolchain.records.check import find_fault
from toolchain.records.plain import printable_json
from toolchain.records.served_generation import ServedComparison, ServedGeneration, ServedRatio, ServedRun

ADVICE = "Give records of `generate --backend openai --json`."


def is_served(place: Path) -> bool:
    """Return whether a file is a record of `generate --backend openai`; False also if the file cannot be read."""
    try:
        record = read_json(place, what="the record", advice=ADVICE)
    except InputError:
        return False
    return isinstance(record, dict) and record.get("backend") == "openai" and "prompts_sha256" in record


def compare_served(places: Sequence[Path]) -> list[ServedComparison]:
    """Compare the records of several servers with the first one, the baseline.

    Raises:
        InputError: a file is another kind of record; the prompts or --max-new-tokens differ; or a record has no number
            of streams in common with the baseline.
    """
    if len(places) < 2:
        raise InputError(
            f"{places[0]}: this is the only record of a server. Give the baseline's record, and then a candidate's."
        )
    baseline, *candidates = [_load(place) for place in places]
    return [_compare(places[0], baseline, *one) for one in zip(places[1:], candidates, strict=True)]


def _load(place: Path) -> ServedGeneration:
    if not is_served(place):
        raise InputError(f"{place}: this is not a record of a server, but another file is. {ADVICE}")
    record = read_json(place, what="the record", advice=ADVICE)
    if fault := find_fault(record, ServedGeneration):
        raise InputError(f"{place}: the record is broken: {fault}. Measure again.")
    return cast("ServedGeneration", printable_json(record))


def _compare(base: Path, baseline: ServedGeneration, place: Path, candidate: ServedGeneration) -> ServedComparison:
    if baseline["prompts_sha256"] != candidate["prompts_sha256"]:
        raise InputError(f"{place}: its prompts differ from those of {base}. Measure both with the same prompts.")
    if baseline["max_new_tokens"] != candidate["max_new_tokens"]:
        asked = f"it has --max-new-tokens {candidate['max_new_tokens']}, and {base} has {baseline['max_new_tokens']}"
        raise InputError(f"{place}: {asked}. Measure both with the same --max-new-tokens.")
    runs = {run["concurrency"]: run for run in candidate["runs"]}
    pairs = [(run, runs[run["concurrency"]]) for run in baseline["runs"] if run["concurrency"] in runs]
    if not pairs:
        raise InputError(
            f"{place}: it has no number of streams in common with {base}. Measure both with the same --concurrency."
        )
    if not all(before["tokens_per_s"] and before["first_token_ms_p50"] for before, _ in pairs):
        raise InputError(
            f"{base}: its server generated no token, so nothing can be compared with it. Measure it again."
        )
    texts = [one["text"] for one in baseline["texts"]], [one["text"] for one in candidate["texts"]]
    return {
        "baseline": str(base),
        "candidate": str(place),
        "gpus": [len(baseline["gpus"]), len(candidate["gpus"])],
        "texts_equal": sum(one == other for one, other in zip(*texts, strict=False)),
        "prompts": len(texts[0]),
        "ratios": [_ratio(*pair) for pair in pairs],
    }


def _ratio(before: ServedRun, after: ServedRun) -> ServedRatio:
    return {
        "concurrency": before["concurrency"],
        "tokens_per_s": after["tokens_per_s"] / before["tokens_per_s"],
        "first_token_ms_p50": after["first_token_ms_p50"] / before["first_token_ms_p50"],
        "first_token_ms_p99": after["first_token_ms_p99"] / before["first_token_ms_p99"],
        "ms_per_token_p50": _over(after["ms_per_token_p50"], before["ms_per_token_p50"]),
        "per_generated_token_j": _over(after["per_generated_token_j"], before["per_generated_token_j"]),
    }


def _over(after: float | None, before: float | None) -> float | None:
    return after / before if after is not None and before else None
