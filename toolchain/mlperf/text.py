"""A result's `mlperf` block in words."""

from typing import Any

Block = dict[str, Any]


def describe(block: Block) -> list[str]:
    """Return lines for a person, LoadGen's verdict first."""
    settings, latency, stopping = block["settings"], block["performance"]["latency_ms"], block["early_stopping"]
    verdict = "VALID" if block["valid"] else "INVALID"
    lines = [f"MLPerf {block['scenario']}: LoadGen says {verdict}; {FIGURES[block['scenario']](block)}"]
    if latency:
        ranks = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99_9": "p99.9", "max": "max"}
        lines.append("  latency, ms: " + ", ".join(f"{text} {latency[key]:.2f}" for key, text in ranks.items()))
    sure = [f"{rank} {stopping[f'{rank}_ms']:.2f} ms" for rank in ("p90", "p99") if stopping[f"{rank}_ms"] is not None]
    if sure:
        lines.append(f"  early stopping, at most with 99 % confidence: {', '.join(sure)}")
    elif stopping["message"] and stopping["satisfied"]:
        lines.append(f"  early stopping: {stopping['message']}")
    lines += [f"  not valid: {reason}" for reason in block["reasons"]]
    lines += [f"  LoadGen's error: {error}" for error in block["errors"]]
    if settings["shortened"]:
        asked, rules = settings["min_duration_s"], settings["rules_min_duration_s"]
        lines.append(f"  judged by at least {asked:g} s, as was asked; MLPerf's rules are {rules:g} s")
    return lines


def _single_stream(block: Block) -> str:
    latency = block["performance"]["latency_ms"]
    return f"90th percentile {latency['p90']:.2f} ms, text to logits, {block['samples']:,} rows one by one"


def _offline(block: Block) -> str:
    return (
        f"{block['performance']['samples_per_s']:,.0f} rows/s from {block['from']}, {block['samples']:,} rows at once"
    )


def _server(block: Block) -> str:
    settings, performance, rows = block["settings"], block["performance"], block["samples"]
    return (
        f"{performance['samples_per_s']:,.0f} rows/s where {settings['target_qps']:,g} arrive, "
        f"{performance['over_latency_queries']:,} of {rows:,} later than {settings['target_latency_ms']:g} ms "
        f"({100 - settings['target_percentile']:g} % may be), {rows / block['batches']:.1f} rows a batch"
    )


FIGURES = {"single-stream": _single_stream, "offline": _offline, "server": _server}
