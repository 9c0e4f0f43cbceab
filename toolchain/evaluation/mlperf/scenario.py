"""Run an MLPerf scenario over the evaluated rows and make the `mlperf` block of a result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from toolchain.base.files import write_bytes
from toolchain.base.tensors import Infer
from toolchain.checkpoint.tokenize import Encode
from toolchain.data.rows import Text
from toolchain.evaluation.mlperf.loadgen import DETAIL, SUMMARY, in_batches, one_by_one, run_loadgen
from toolchain.evaluation.mlperf.log import RULES_S, Log, outcome
from toolchain.recipe import Recipe
from toolchain.recipe.tables import is_remote
from toolchain.records.mlperf import MlperfBlock, MlperfRun
from toolchain.records.mlperf import Scenario as ScenarioName
from toolchain.records.result import Timing

# Option --scenario -> LoadGen's name.
NAMES = {"single-stream": "SingleStream", "offline": "Offline", "server": "Server"}

# Least number of samples that MLPerf's rules require in the offline scenario. A smaller library is run once as a whole.
OFFLINE_SAMPLES = 24_576

# The offline scenario is a single query that must last for the shortest allowed duration. LoadGen computes its size
# from an expected throughput: the measured throughput times this factor, in case the run is faster than the
# measurement.
HEADROOM = 1.2


@dataclass(frozen=True)
class ScenarioRun:
    """A finished MLPerf run: LoadGen's logs by name, and the `mlperf` block, to which `save` adds the logs' names."""

    block: MlperfRun
    logs: dict[str, bytes]

    def save(self, folder: Path, stem: str) -> MlperfBlock:
        """Write the logs into the folder of results as `stem`.NAME; return the block with these names."""
        for name, data in self.logs.items():
            write_bytes(folder / f"{stem}.{name}", data)
        return {**self.block, "summary_file": f"{stem}.{SUMMARY}", "detail_file": f"{stem}.{DETAIL}"}


def run_scenario(
    recipe: Recipe,
    infer: Infer,
    encode: Encode,
    texts: list[Text],
    speed: Timing,
    *,
    tell: Callable[[str], None],
) -> ScenarioRun:
    """Run the MLPerf scenario of a recipe over rows.

    Single-stream is timed from text to logits. Offline and server are timed from tokens to logits, in batches as large
    as in the evaluation. If the backend is a remote server, it receives texts in every scenario. `speed` has the timing
    of the evaluation, from which LoadGen's settings are derived. `tell` is called with each line of progress.

    Raises:
        MachineError: LoadGen is not installed, or its process fails.
        InputError: LoadGen's log cannot be read.
    """
    name = cast(ScenarioName, recipe.scenario)  # the recipe checks the choice
    settings = loadgen_settings(recipe, speed, rows=len(texts))
    alone, max_slots = name == "single-stream", int(speed["tokens"]["batch_slots"])
    process = one_by_one(infer, encode, texts) if alone else in_batches(infer, encode, texts, max_slots=max_slots)
    tell(f"MLPerf {name}: LoadGen issues queries for at least {recipe.min_duration or RULES_S:g} s")
    run = run_loadgen(NAMES[name], settings, process, rows=len(texts))
    found = outcome(Log(run.logs[DETAIL].decode(errors="replace"), where=DETAIL))
    assert found["samples"] == run.samples, "LoadGen reports another number of samples than were processed"
    from_text = alone or is_remote(recipe.backend)
    block: MlperfRun = {
        "scenario": name,
        "from": "text" if from_text else "tokens",
        **found,
        "batches": run.batches,
    }
    return ScenarioRun(block, run.logs)


def loadgen_settings(recipe: Recipe, speed: Timing, *, rows: int) -> dict[str, float]:
    """Return LoadGen's settings that replace values of MLPerf's rules: LoadGen's name -> value."""
    settings: dict[str, float] = {}
    if recipe.min_duration is not None:
        settings["min_duration_ms"] = round(1e3 * recipe.min_duration)
    if recipe.scenario == "single-stream":
        settings["single_stream_expected_latency_ns"] = round(1e6 * speed["latency_ms"]["p50"])
    elif recipe.scenario == "offline":
        settings["offline_expected_qps"] = recipe.target_qps or HEADROOM * speed["runtime_throughput_per_s"]
        settings["min_query_count"] = min(rows, OFFLINE_SAMPLES)
    else:
        assert recipe.target_qps is not None, "a recipe for the server scenario has a target_qps"
        settings["server_target_qps"] = recipe.target_qps
        if recipe.target_latency_ms is not None:
            settings["server_target_latency_ns"] = round(1e6 * recipe.target_latency_ms)
    return settings
