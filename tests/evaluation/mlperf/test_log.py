"""Detailed logs of LoadGen 6.0.17, reduced to the lines on rules and results, agree with LoadGen's own summaries."""

import re
from pathlib import Path

import pytest

from toolchain.errors import InputError
from toolchain.evaluation.mlperf.log import Log, outcome

LOGS = Path(__file__).parent / "logs"
NAMES = sorted(path.name.removesuffix(".summary.txt") for path in LOGS.glob("*.summary.txt"))


def detail(name):
    return (LOGS / f"{name}.detail.txt").read_text()


def found(name):
    return outcome(Log(detail(name), where=name))


def summary(name, label):
    """Return the value of a label in LoadGen's summary."""
    text = (LOGS / f"{name}.summary.txt").read_text()
    return re.search(rf"^ *{re.escape(label)} *: *(.*)$", text, re.MULTILINE)[1]


def test_the_logs_have_both_verdicts():
    assert {found(name)["valid"] for name in NAMES} == {True, False}


@pytest.mark.parametrize("name", NAMES)
def test_verdict_and_rules_equal_the_summary(name):
    block = found(name)
    checks = {"min_duration": "Min duration satisfied", "min_queries": "Min queries satisfied"}
    checks |= {"latency_bound": "Performance constraints satisfied"} if name.startswith("server") else {}
    assert block["valid"] == (summary(name, "Result is") == "VALID")
    assert block["checks"] == {key: summary(name, label) == "Yes" for key, label in checks.items()}
    assert block["early_stopping"]["satisfied"] == (summary(name, "Early stopping satisfied") == "Yes")
    assert block["settings"]["min_duration_s"] == int(summary(name, "min_duration (ms)")) / 1000
    assert block["settings"]["seeds"]["schedule"] == int(summary(name, "schedule_rng_seed"))
    assert bool(block["reasons"]) == (not block["valid"])


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("offline")])
def test_latencies_equal_the_summary_in_milliseconds(name):
    latency = found(name)["performance"]["latency_ms"]
    assert latency["p99"] == int(summary(name, "99.00 percentile latency (ns)")) / 1e6
    assert latency["p99_9"] == int(summary(name, "99.90 percentile latency (ns)")) / 1e6
    assert latency["max"] == int(summary(name, "Max latency (ns)")) / 1e6


def test_throughput_equals_the_summary():
    rates = {
        "single-stream-valid": "QPS w/o loadgen overhead",
        "offline-short": "Samples per second",
        "server-late": "Completed samples per second",
    }
    for name, label in rates.items():
        assert found(name)["performance"]["samples_per_s"] == pytest.approx(float(summary(name, label)), rel=1e-4)


def test_offline_counts_samples_and_has_no_latencies():
    block = found("offline-short")
    assert (block["queries"], block["samples"]) == (1, int(summary("offline-short", "samples_per_query")))
    assert block["performance"]["latency_ms"] is None
    assert block["reasons"][0].startswith("Increase expected QPS")


def test_early_stopping_gives_bounds_or_a_reason():
    enough, few = found("single-stream-valid")["early_stopping"], found("single-stream-few")
    label = " * Early stopping 90.0th percentile estimate".strip()
    assert enough["p90_ms"] == int(summary("single-stream-valid", label)) / 1e6
    assert (few["early_stopping"]["p90_ms"], few["early_stopping"]["p99_ms"]) == (None, None)
    assert "Need to process at least 64 queries" in few["reasons"][0]


def test_server_counts_late_queries():
    block = found("server-late")
    assert block["settings"]["target_latency_ms"] == 1
    assert 0 < block["performance"]["over_latency_queries"] <= block["samples"]
    assert len(block["reasons"]) == 2


def test_an_error_that_loadgen_logs_is_kept():
    line = '{"key": "error_x", "value": "Not so.", "metadata": {"is_error": true}}'
    text = f"{detail('offline-short')}:::MLLOG {line}\n"
    assert outcome(Log(text, where="x"))["errors"] == ["Not so."]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(":::MLLOG", "MLLOG", 1), "line 1 is not in LoadGen's format"),
        (lambda text: text[:-20], r"line \d+ is not in LoadGen's format"),
        (lambda text: text + "[]\n", r"line \d+ is not in LoadGen's format"),
        (
            lambda text: re.sub(r".*result_validity.*\n", "", text),
            r"result_validity must occur once, as str, but is \[\]",
        ),
        (lambda text: text + text, "effective_scenario must occur once, as str, but is"),
        (lambda text: text.replace('"value": "VALID"', '"value": "FINE"'), "result FINE is unknown"),
        (lambda text: re.sub(r'(result_query_count", "value": )\d+', r'\1"9"', text), "must occur once, as int"),
        (lambda text: re.sub(r'(mean_latency_ns", "value": )\d+', r"\1NaN", text), "not a finite number"),
    ],
)
def test_an_incomplete_log_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        outcome(Log(change(detail("single-stream-valid")), where="the log"))
