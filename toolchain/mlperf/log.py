"""LoadGen's detailed log, read strictly: lines of JSON, of which the result and the rules of the test are taken."""

import json
import math
from typing import Any

from toolchain.errors import InputError

MARK = ":::MLLOG "
NS_PER_MS = 1e6
PERCENTILES = {"p50": "50.00", "p90": "90.00", "p95": "95.00", "p97": "97.00", "p99": "99.00", "p99_9": "99.90"}
RATES = {
    "SingleStream": "result_qps_without_loadgen_overhead",
    "Offline": "result_samples_per_second",
    "Server": "result_completed_samples_per_sec",
}


class Log:
    """What a log says, by key."""

    def __init__(self, text: str, *, where: str) -> None:
        """Read a log.

        Raises:
            InputError: a line is none of LoadGen's.
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
                raise InputError(f"{where}: line {number} is none of LoadGen's: {line[:80]!r}. Run again.") from None
            self._values.setdefault(key, []).append(value)
            if failed:
                self.errors.append(str(value))

    def all(self, key: str) -> list[Any]:
        """Return the values that stand at a key, in their order."""
        return self._values.get(key, [])

    def text(self, key: str) -> str:
        """Return the text at a key that must be there once."""
        return str(self._one(key, str))

    def flag(self, key: str) -> bool:
        """Return the truth value at a key that must be there once."""
        return bool(self._one(key, bool))

    def number(self, key: str) -> float:
        """Return the number at a key that must be there once."""
        value = self._one(key, int, float)
        if not math.isfinite(value):
            raise InputError(f"{self.where}: {key} is {value}, no finite number. Run again.")
        return float(value)

    def whole(self, key: str) -> int:
        """Return the whole number at a key that must be there once; seeds need all of its 64 bits."""
        return int(self._one(key, int))

    def _one(self, key: str, *kinds: type) -> Any:
        """Return the only value at a key.

        Raises:
            InputError: there is none, more than one, or one of another type.
        """
        values = self.all(key)
        if len(values) != 1 or type(values[0]) not in kinds:
            raise InputError(f"{self.where}: {key} is {values}, not one {kinds[0].__name__}. Run again.")
        return values[0]


def outcome(log: Log) -> dict[str, Any]:
    """Return what LoadGen found and by which rules: `valid` to `loadgen` of a result's `mlperf` block.

    Raises:
        InputError: the log is not whole, or of a scenario that we do not run.
    """
    scenario, verdict = log.text("effective_scenario"), log.text("result_validity")
    if scenario not in RATES or verdict not in ("VALID", "INVALID"):
        raise InputError(f"{log.where}: scenario {scenario}, result {verdict}: not known here. Run again.")
    checks = {name: log.flag(f"result_{name}_met") for name in ("min_duration", "min_queries")}
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


def _early_stopping(log: Log, scenario: str) -> dict[str, Any]:
    """Return whether the run was long enough for its percentile, and the percentiles that are sure at 99 %.

    LoadGen calls the second of them multi-stream's: it stands for that scenario, too.
    """
    keys = {"p90_ms": "early_stopping_latency_ss", "p99_ms": "early_stopping_latency_ms"}
    estimates = {
        name: log.number(key) / NS_PER_MS if scenario == "SingleStream" and log.all(key) else None
        for name, key in keys.items()
    }
    message = " ".join(log.text("early_stopping_result").replace(" * ", " ").split())
    # LoadGen writes 0 for an estimate that too few queries allow.
    return {
        "satisfied": log.flag("early_stopping_met"),
        "message": message,
        **{name: value or None for name, value in estimates.items()},
    }


def _performance(log: Log, scenario: str) -> dict[str, Any]:
    """Return rates and latencies; of offline, whose samples all wait for one end, latencies mean nothing."""
    found: dict[str, Any] = {"samples_per_s": log.number(RATES[scenario]), "latency_ms": None}
    if scenario != "Offline":
        names = {name: f"{rank}_percentile" for name, rank in PERCENTILES.items()}
        keys = {"mean": "mean", "min": "min", "max": "max", **names}
        found["latency_ms"] = {name: log.number(f"result_{key}_latency_ns") / NS_PER_MS for name, key in keys.items()}
    if scenario == "Server":
        found["scheduled_samples_per_s"] = log.number("result_scheduled_samples_per_sec")
        found["over_latency_queries"] = log.whole("result_overlatency_query_count")
    return found


def _settings(log: Log, scenario: str) -> dict[str, Any]:
    """Return the rules as LoadGen applied them."""
    bound = log.number("effective_target_latency_ns") / NS_PER_MS
    seeds = {name: log.whole(f"effective_{name}_rng_seed") for name in ("qsl", "sample_index", "schedule")}
    return {
        "min_duration_s": log.number("effective_min_duration_ms") / 1e3,
        "min_query_count": log.whole("effective_min_query_count"),
        "min_sample_count": log.whole("effective_min_sample_count"),
        "target_qps": log.number("effective_target_qps"),
        "target_latency_ms": bound if scenario == "Server" else None,
        "target_percentile": None if scenario == "Offline" else 100 * log.number("effective_target_latency_percentile"),
        "rows": log.whole("effective_performance_sample_count"),
        "seeds": seeds,
    }
