"""Read LoadGen's detailed log, which has a JSON object per line: the verdict, the measurements and the rules.

Anything unexpected in the log is an error.
"""

import json
import math
from typing import Any

from toolchain.errors import InputError
from toolchain.records.mlperf import Checks, EarlyStopping, Outcome, Performance, ScenarioLatency, Settings

MARK = ":::MLLOG "
NS_PER_MS = 1e6

# Shortest duration of a run in seconds that MLPerf's rules require in every scenario (LoadGen's mlperf.conf).
RULES_S = 600.0

# LoadGen's name of a scenario -> the key of its throughput in the log, in samples/s.
RATES = {
    "SingleStream": "result_qps_without_loadgen_overhead",
    "Offline": "result_samples_per_second",
    "Server": "result_completed_samples_per_sec",
}


class Log:
    """The entries of a LoadGen log by key, and its error messages."""

    def __init__(self, text: str, *, where: str) -> None:
        """Parse the text of a log. Error messages call the log `where`.

        Raises:
            InputError: a line is not in LoadGen's format.
        """
        self.where = where
        self.errors: list[str] = []
        self._values: dict[str, list[Any]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            try:
                if not line.startswith(MARK):
                    raise ValueError
                entry = json.loads(line.removeprefix(MARK))
                key, value, failed = entry["key"], entry["value"], entry["metadata"]["is_error"]
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{where}: line {number} is not in LoadGen's format: {line[:80]!r}. Run the scenario again."
                ) from None
            self._values.setdefault(key, []).append(value)
            if failed:
                self.errors.append(str(value))

    def all(self, key: str) -> list[Any]:
        """Return all values of a key in the order of the log; an empty list if it does not occur."""
        return self._values.get(key, [])

    def text(self, key: str) -> str:
        """Return the text of a key that must occur exactly once. For errors see `_one`."""
        return str(self._one(key, str))

    def flag(self, key: str) -> bool:
        """Return the boolean value of a key that must occur exactly once. For errors see `_one`."""
        return bool(self._one(key, bool))

    def number(self, key: str) -> float:
        """Return the number of a key that must occur exactly once.

        Raises:
            InputError: the key is missing or repeated, or its value is not a finite number.
        """
        value = self._one(key, int, float)
        if not math.isfinite(value):
            raise InputError(f"{self.where}: {key} is {value}, not a finite number. Run the scenario again.")
        return float(value)

    def whole(self, key: str) -> int:
        """Return the integer value of a key that must occur exactly once. A float would round 64-bit integers."""
        return int(self._one(key, int))

    def _one(self, key: str, *kinds: type) -> Any:
        """Return the only value of a key.

        Raises:
            InputError: the key is missing or repeated, or its value has none of the types `kinds`.
        """
        values = self.all(key)
        if len(values) != 1 or type(values[0]) not in kinds:
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(
                f"{self.where}: {key} must occur once, as {wanted}, but is {values}. Run the scenario again."
            )
        return values[0]


def outcome(log: Log) -> Outcome:
    """Return LoadGen's verdict, its measurements and the rules of the run.

    Raises:
        InputError: the log lacks an entry, or its scenario or its verdict is unknown.
    """
    scenario, verdict = log.text("effective_scenario"), log.text("result_validity")
    if scenario not in RATES or verdict not in ("VALID", "INVALID"):
        raise InputError(
            f"{log.where}: the scenario {scenario} or the result {verdict} is unknown. Run the scenario again."
        )
    checks: Checks = {
        "min_duration": log.flag("result_min_duration_met"),
        "min_queries": log.flag("result_min_queries_met"),
    }
    if scenario == "Server":
        checks["latency_bound"] = log.flag("result_perf_constraints_met")
    stopping = _early_stopping(log, scenario)
    reasons = [" ".join(str(reason).split()) for reason in log.all("result_invalid_reason")]
    if not stopping["satisfied"]:
        reasons.append(stopping["message"])
    queries = log.whole("result_query_count")
    return {
        "valid": verdict == "VALID",
        "reasons": [reason for reason in reasons if reason],
        "errors": log.errors,
        "checks": checks,
        "early_stopping": stopping,
        "performance": _performance(log, scenario),
        "settings": _settings(log, scenario),
        "queries": queries,
        "samples": queries * log.whole("generated_samples_per_query"),
        "loadgen": log.text("loadgen_version"),
    }


def _early_stopping(log: Log, scenario: str) -> EarlyStopping:
    """Return LoadGen's early-stopping check: whether the run had enough queries to state its percentile.

    For single-stream it also has upper bounds of the 90th and the 99th percentile of the latency, in ms. LoadGen names
    the bound of the 99th after multi-stream, whose metric it is, but writes it for single-stream too.
    """
    message = " ".join(log.text("early_stopping_result").replace(" * ", " ").split())
    return {
        "satisfied": log.flag("early_stopping_met"),
        "message": message,
        "p90_ms": _bound_ms(log, scenario, "early_stopping_latency_ss"),
        "p99_ms": _bound_ms(log, scenario, "early_stopping_latency_ms"),
    }


def _bound_ms(log: Log, scenario: str, key: str) -> float | None:
    """Return the bound of a percentile in ms; None if the scenario is not single-stream, or queries were too few."""
    if scenario != "SingleStream" or not log.all(key):
        return None
    return log.number(key) / NS_PER_MS or None  # LoadGen writes 0 if there were too few queries


def _performance(log: Log, scenario: str) -> Performance:
    """Return throughput and latency. Offline has no latency, because all its samples are in one query."""
    found: Performance = {"samples_per_s": log.number(RATES[scenario]), "latency_ms": None}
    if scenario != "Offline":
        found["latency_ms"] = _latency(log)
    if scenario == "Server":
        found["scheduled_samples_per_s"] = log.number("result_scheduled_samples_per_sec")
        found["over_latency_queries"] = log.whole("result_overlatency_query_count")
    return found


def _latency(log: Log) -> ScenarioLatency:
    def ms(key: str) -> float:
        return log.number(f"result_{key}_latency_ns") / NS_PER_MS

    return {
        "mean": ms("mean"),
        "min": ms("min"),
        "max": ms("max"),
        "p50": ms("50.00_percentile"),
        "p90": ms("90.00_percentile"),
        "p95": ms("95.00_percentile"),
        "p97": ms("97.00_percentile"),
        "p99": ms("99.00_percentile"),
        "p99_9": ms("99.90_percentile"),
    }


def _settings(log: Log, scenario: str) -> Settings:
    """Return the settings that LoadGen applied to the run, and whether their minimum duration is below MLPerf's."""
    bound_ms = log.number("effective_target_latency_ns") / NS_PER_MS
    min_duration_s = log.number("effective_min_duration_ms") / 1e3
    return {
        "min_duration_s": min_duration_s,
        "min_query_count": log.whole("effective_min_query_count"),
        "min_sample_count": log.whole("effective_min_sample_count"),
        "target_qps": log.number("effective_target_qps"),
        "target_latency_ms": bound_ms if scenario == "Server" else None,
        "target_percentile": None if scenario == "Offline" else 100 * log.number("effective_target_latency_percentile"),
        "rows": log.whole("effective_performance_sample_count"),
        "seeds": {
            "qsl": log.whole("effective_qsl_rng_seed"),
            "sample_index": log.whole("effective_sample_index_rng_seed"),
            "schedule": log.whole("effective_schedule_rng_seed"),
        },
        "rules_min_duration_s": RULES_S,
        "shortened": min_duration_s < RULES_S,
    }
