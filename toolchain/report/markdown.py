"""Results as a page of Markdown, and the record of `accept`."""

from typing import Any

from toolchain import __version__
from toolchain.energy import text
from toolchain.evaluation.results import Result
from toolchain.mlperf import text as mlperf
from toolchain.report.table import COLUMNS, groups, headings, rows, title


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
        "text to logits, at the best batch; util is the share, %, of the device's speed in matrix products that",
        "the real tokens take while the model runs; MB is the peak of the whole process.",
        "",
        *(line for result in results for line in _named(result, text.describe(result["energy"]))),
        *(line for result in results for line in _scenario(result)),
        "",
        "## Where",
        "",
        *(f"- {key}: {value}" for key, value in first["environment"].items() if value is not None),
        f"- toolchain: {__version__}",
        f"- measured: {first['created']}",
        "",
    ]
    return "\n".join(lines)


def _scenario(result: Result) -> list[str]:
    return _named(result, mlperf.describe(result["mlperf"])) if result.get("mlperf") else []


def _named(result: Result, described: list[str]) -> list[str]:
    first, *rest = described
    return [f"- {result['backend']} {result['variant']}, {first}", *(f"  - {line.strip()}" for line in rest)]


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
