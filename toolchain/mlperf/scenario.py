"""A scenario over the evaluated rows: what LoadGen is told, and what becomes of its word in a result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.checkpoint.tokenize import Encode
from toolchain.data.rows import Text
from toolchain.files import write_bytes
from toolchain.mlperf.answer import in_batches, one_by_one
from toolchain.mlperf.ask import DETAIL, SUMMARY, ask
from toolchain.mlperf.log import Log, outcome
from toolchain.recipe import Recipe
from toolchain.recipe.tables import is_remote
from toolchain.tensors import Infer

NAMES = {"single-stream": "SingleStream", "offline": "Offline", "server": "Server"}

RULES_S = 600.0
"""The least duration that MLPerf asks, of every scenario (LoadGen's mlperf.conf)."""

OFFLINE_SAMPLES = 24_576
"""The least number of samples that it asks offline; of a smaller library, as many as that has."""

HEADROOM = 1.2
"""Offline's one query must not end too early, so it is made for a machine so much faster than was measured."""


@dataclass(frozen=True)
class Scenario:
    """A result's `mlperf` block, without the names of LoadGen's logs, and the logs."""

    block: dict[str, Any]
    logs: dict[str, bytes]

    def keep(self, folder: Path, stem: str) -> dict[str, Any]:
        """Write the logs beside the result `stem`; return the block with their names."""
        for name, data in self.logs.items():
            write_bytes(folder / f"{stem}.{name}", data)
        return {**self.block, "summary_file": f"{stem}.{SUMMARY}", "detail_file": f"{stem}.{DETAIL}"}


def run_scenario(
    recipe: Recipe,
    infer: Infer,
    encode: Encode,
    texts: list[Text],
    speed: dict[str, Any],
    *,
    tell: Callable[[str], None],
) -> Scenario:
    """Run the scenario that a recipe asks for over the rows.

    Single-stream goes from text to logits; offline and server from tokens, in batches as large as the evaluation's. To
    a server of models they all go as text. `speed` is what the evaluation measured: LoadGen prepares its queries by it.

    Raises:
        MachineError: LoadGen is not installed, or ends without a result.
        InputError: its log cannot be read.
    """
    name = str(recipe.scenario)
    settings = loadgen_settings(recipe, speed, rows=len(texts))
    alone, max_slots = name == "single-stream", int(speed["tokens"]["batch_slots"])
    answer = one_by_one(infer, encode, texts) if alone else in_batches(infer, encode, texts, max_slots=max_slots)
    tell(f"MLPerf {name}: LoadGen asks for at least {recipe.min_duration or RULES_S:g} s")
    asked = ask(NAMES[name], settings, answer, rows=len(texts))
    found = outcome(Log(asked.logs[DETAIL].decode(errors="replace"), where=DETAIL))
    assert found["samples"] == asked.samples, "LoadGen waits for every answer"
    found["settings"] |= {"rules_min_duration_s": RULES_S, "shortened": found["settings"]["min_duration_s"] < RULES_S}
    origin = "text" if alone or is_remote(recipe.backend) else "tokens"
    block = {"scenario": name, "from": origin, **found, "batches": asked.batches}
    return Scenario(block, asked.logs)


def loadgen_settings(recipe: Recipe, speed: dict[str, Any], *, rows: int) -> dict[str, float]:
    """Return LoadGen's settings, by its own names, where they are not those of MLPerf's rules."""
    settings: dict[str, float] = {}
    if recipe.min_duration is not None:
        settings["min_duration_ms"] = round(1e3 * recipe.min_duration)
    if recipe.scenario == "single-stream":
        settings["single_stream_expected_latency_ns"] = round(1e6 * speed["latency_ms"]["p50"])
    elif recipe.scenario == "offline":
        settings["offline_expected_qps"] = recipe.target_qps or HEADROOM * speed["runtime_throughput_per_s"]
        settings["min_query_count"] = min(rows, OFFLINE_SAMPLES)
    else:
        assert recipe.target_qps is not None, "a recipe of this scenario has it"
        settings["server_target_qps"] = recipe.target_qps
        if recipe.target_latency_ms is not None:
            settings["server_target_latency_ns"] = round(1e6 * recipe.target_latency_ms)
    return settings
