"""The `mlperf` block of a result as lines of text, for the terminal and for reports."""

from collections.abc import Callable

from toolchain.records.mlperf import MlperfRun


def describe(block: MlperfRun) -> list[str]:
    """Return a block as lines of text. The first line has LoadGen's verdict and the main figure."""
    settings, latency, stopping = block["settings"], block["performance"]["latency_ms"], block["early_stopping"]
    verdict = "VALID" if block["valid"] else "INVALID"
    lines = [f"MLPerf {block['scenario']}: LoadGen says {verdict}; {FIGURES[block['scenario']](block)}"]
    if latency:
        ranks = [("p50", latency["p50"]), ("p90", latency["p90"]), ("p95", latency["p95"]), ("p99", latency["p99"])]
        ranks += [("p99.9", latency["p99_9"]), ("max", latency["max"])]
        lines.append("  latency, ms: " + ", ".join(f"{rank} {ms:.2f}" for rank, ms in ranks))
    bounds = [("p90", stopping["p90_ms"]), ("p99", stopping["p99_ms"])]
    known = [f"{rank} {ms:.2f} ms" for rank, ms in bounds if ms is not None]
    if known:
        lines.append(f"  early stopping, upper bounds with 99 % confidence: {', '.join(known)}")
    elif stopping["message"] and stopping["satisfied"]:
        lines.append(f"  early stopping: {stopping['message']}")
    lines += [f"  not valid: {reason}" for reason in block["reasons"]]
    lines += [f"  LoadGen's error: {error}" for error in block["errors"]]
    if settings["shortened"]:
        least, rules = settings["min_duration_s"], settings["rules_min_duration_s"]
        lines.append(f"  shortened: ran for at least {least:g} s, as requested; MLPerf's rules require {rules:g} s")
    return lines


def _single_stream(block: MlperfRun) -> str:
    latency = block["performance"]["latency_ms"]
    assert latency is not None
    return f"90th percentile {latency['p90']:.2f} ms from text to logits, {block['samples']:,} rows one by one"


def _offline(block: MlperfRun) -> str:
    throughput = block["performance"]["samples_per_s"]
    return f"{throughput:,.0f} rows/s from {block['from']}, {block['samples']:,} rows in one query"


def _server(block: MlperfRun) -> str:
    settings, performance, rows = block["settings"], block["performance"], block["samples"]
    assert settings["target_percentile"] is not None
    return (
        f"{performance['samples_per_s']:,.0f} rows/s at {settings['target_qps']:,g} queries/s, "
        f"{performance['over_latency_queries']:,} of {rows:,} later than {settings['target_latency_ms']:g} ms "
        f"({100 - settings['target_percentile']:g} % allowed), {rows / block['batches']:.1f} rows per batch"
    )


FIGURES: dict[str, Callable[[MlperfRun], str]] = {
    "single-stream": _single_stream,
    "offline": _offline,
    "server": _server,
}
