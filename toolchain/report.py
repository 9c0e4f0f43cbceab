"""Results side by side: as a table on the terminal, Markdown, CSV or JSON."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolchain import __version__
from toolchain.energy import words
from toolchain.results import Result


def _metric(result: Result) -> str:
    low, high = result["metrics_ci95"][result["primary"]]
    return f"{result['metrics'][result['primary']]:.4f} [{low:.3f}, {high:.3f}]"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _milli(value: float | None) -> float | None:
    return None if value is None else 1e3 * value


METRIC = "metric"

COLUMNS: dict[str, Callable[[Result], str]] = {
    "runtime": lambda r: f"{r['backend']} {r['device']}",
    "variant": lambda r: str(r["variant"]),
    METRIC: _metric,
    "agree": lambda r: _number(r["agreement"]["label_agreement"], 4),
    "diff": lambda r: _number(r["agreement"]["max_abs_logit_difference"], 4),
    "p50 ms": lambda r: _number(r["latency_ms"]["p50"], 2),
    "p99 ms": lambda r: _number(r["latency_ms"]["p99"], 2),
    "rows/s": lambda r: _number(r["throughput_per_s"], 0),
    "MB": lambda r: _number(r["peak_memory_mb"]["host"], 0),
    "mJ/row": lambda r: _number(_milli(r["energy"]["per_inference_j"]), 2),
}
"""Column heading -> its text for a result; '-' stands for what was not measured."""


def title(result: Result) -> str:
    """Return what was evaluated, in a line."""
    return f"{Path(result['model']).name} on {result['task']} {result['split']}, {result['n']} rows"


def headings(results: list[Result]) -> list[str]:
    """Return the column headings; the metric's is its name."""
    return [f"{results[0]['primary']} [95 % CI]" if heading == METRIC else heading for heading in COLUMNS]


def rows(results: list[Result]) -> list[list[str]]:
    """Return the table's cells, a row a result."""
    return [[cell(result) for cell in COLUMNS.values()] for result in results]


def groups(results: list[Result]) -> list[list[Result]]:
    """Return the results that can stand in one table: those of the same model, task and rows."""
    found: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        found.setdefault((result["model"], result["task"], result["data_sha256"]), []).append(result)
    return list(found.values())


def markdown(results: list[Result]) -> str:
    """Return a Markdown page: a table for each group, what is missing and why, and where it was measured."""
    return "\n".join(_section(group) for group in groups(results))


def _section(results: list[Result]) -> str:
    first = results[0]
    lines = [
        f"# {title(first)}",
        "",
        "| " + " | ".join(headings(results)) + " |",
        "|" + " --- |" * len(COLUMNS),
        *("| " + " | ".join(row) + " |" for row in rows(results)),
        "",
        f"`agree` is the share of rows with the label that {first['agreement']['reference']} gives, `diff` the",
        "largest difference of a logit. Latency is of one sentence, text to logits; rows/s is the whole set,",
        "text to logits, at the best batch; MB is the peak of the whole process.",
        "",
        *(line for result in results for line in _energy(result)),
        "",
        "## Where",
        "",
        *(f"- {key}: {value}" for key, value in first["environment"].items() if value is not None),
        f"- toolchain: {__version__}",
        f"- measured: {first['created']}",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _energy(result: Result) -> list[str]:
    first, *rest = words.describe(result["energy"])
    return [f"- {result['backend']} {result['variant']}, {first}", *(f"  - {line.strip()}" for line in rest)]


def comma_separated(results: list[Result]) -> str:
    """Return the table as CSV, with the numbers as they are in the results."""
    buffer = io.StringIO()
    flat = [_flatten(result) for result in results]
    heads = list(dict.fromkeys(key for row in flat for key in row))
    writer = csv.DictWriter(buffer, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested keys joined by dots; of lists those of numbers only, such as intervals."""
    if isinstance(value, list):
        value = dict(enumerate(value)) if all(isinstance(entry, int | float) for entry in value) else {}
    if isinstance(value, dict):
        parts = (_flatten(entry, f"{prefix}.{key}" if prefix else key) for key, entry in value.items())
        return {key: entry for part in parts for key, entry in part.items()}
    return {prefix: value}


def as_json(results: list[Result]) -> str:
    """Return the results as one JSON list."""
    return json.dumps(results, indent=2, ensure_ascii=False) + "\n"


def acceptance(record: dict[str, Any]) -> str:
    """Return the record of `accept` as a page: the machine, the checks, and the results side by side."""
    facts = {"GPU": record["gpu"], "for": record["tag"], **record["environment"]}
    lines = [f"# Acceptance: {record['gpu']}, {record['created']}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value if value is not None else '-'} |" for name, value in facts.items()]
    lines += ["", "| check | outcome | found | s |", "|---|---|---|---|"]
    for check in record["checks"]:
        detail = check["detail"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {check['name']} | {check['outcome']} | {detail} | {check['seconds']:g} |")
    if record["results"]:
        lines += ["", markdown(record["results"])]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[list[Result]], str]] = {"md": markdown, "csv": comma_separated, "json": as_json}
