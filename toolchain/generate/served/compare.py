"""Records of `generate --backend openai` side by side, such as tensor parallelism over 1 and 2 GPUs.

Each figure is one measurement, so a ratio has no interval.
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
    """Return whether a file holds a record of `generate --backend openai`; a file that cannot be read does not."""
    try:
        record = read_json(place, what="the record", advice=ADVICE)
    except InputError:
        return False
    return isinstance(record, dict) and record.get("backend") == "openai" and "prompts_sha256" in record


def compare_served(places: Sequence[Path]) -> list[ServedComparison]:
    """Compare the records of several servers with the first one, the baseline.

    Raises:
        InputError: a place has another kind of record; the prompts or the most new tokens differ; or no number of
            streams is in both.
    """
    if len(places) < 2:
        raise InputError(f"{places[0]}: a single record of a server. Give the baseline, and then a candidate.")
    baseline, *candidates = [_load(place) for place in places]
    return [_compare(places[0], baseline, *one) for one in zip(places[1:], candidates, strict=True)]


def _load(place: Path) -> ServedGeneration:
    if not is_served(place):
        raise InputError(f"{place}: not a record of a server, as others here are. {ADVICE}")
    record = read_json(place, what="the record", advice=ADVICE)
    if fault := find_fault(record, ServedGeneration):
        raise InputError(f"{place}: broken: {fault}. Measure again.")
    return cast("ServedGeneration", printable_json(record))


def _compare(base: Path, baseline: ServedGeneration, place: Path, candidate: ServedGeneration) -> ServedComparison:
    if baseline["prompts_sha256"] != candidate["prompts_sha256"]:
        raise InputError(f"{place}: its prompts are not those of {base}. Measure both with the same prompts.")
    if baseline["max_new_tokens"] != candidate["max_new_tokens"]:
        asked = f"{candidate['max_new_tokens']} new tokens, and {baseline['max_new_tokens']} in {base}"
        raise InputError(f"{place}: {asked}. Measure both with the same --max-new-tokens.")
    runs = {run["concurrency"]: run for run in candidate["runs"]}
    pairs = [(run, runs[run["concurrency"]]) for run in baseline["runs"] if run["concurrency"] in runs]
    if not pairs:
        raise InputError(f"{place}: no number of streams is also in {base}. Measure both with the same --concurrency.")
    if not all(before["tokens_per_s"] and before["first_token_ms_p50"] for before, _ in pairs):
        raise InputError(f"{base}: its server generated no token, so there is no ratio to it. Measure another one.")
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
