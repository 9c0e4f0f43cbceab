"""Results as a page of Markdown, and the report of `toolchain accept`."""

from toolchain import __version__
from toolchain.energy.text import describe
from toolchain.evaluation.mlperf.text import describe as describe_scenario
from toolchain.records.accept import AcceptRecord
from toolchain.records.result import Result
from toolchain.report.table import groups, headings, rows, title


def markdown(results: list[Result]) -> str:
    """Return a Markdown page with a section for each group of comparable results.

    A section has the table of results, their energy or why it was not measured, and the machine.
    """
    return "\n".join(_section(group) for group in groups(results))


def _section(results: list[Result]) -> str:
    first = results[0]
    lines = [
        f"# {title(first)}",
        "",
        "| " + " | ".join(headings(results)) + " |",
        "|" + " --- |" * len(headings(results)),
        *("| " + " | ".join(row) + " |" for row in rows(results)),
        "",
        f"`agree` is the fraction of rows with the same label as {first['agreement']['reference']}, and `diff` the",
        "largest difference of a logit. `p50 ms` and `p99 ms` are latencies of a single row, and `rows/s` is the",
        "throughput of all rows with the best batch size; both are measured from text to logits. `util` is the",
        "percentage of the device's GEMM throughput that real tokens use while the model runs. `MB` is the peak memory",
        "of the whole process.",
        "",
        *(line for result in results for line in _named(result, describe(result["energy"]))),
        *(line for result in results for line in _scenario(result)),
        "",
        "## Machine",
        "",
        *(f"- {key}: {value}" for key, value in first["environment"].items() if value is not None),
        f"- toolchain: {__version__}",
        f"- measured: {first['created']}",
        "",
    ]
    return "\n".join(lines)


def _scenario(result: Result) -> list[str]:
    mlperf = result.get("mlperf")
    return _named(result, describe_scenario(mlperf)) if mlperf else []


def _named(result: Result, described: list[str]) -> list[str]:
    if not described:
        return []
    first, *rest = described
    return [f"- {result['backend']} {result['variant']}, {first}", *(f"  - {line.strip()}" for line in rest)]


def acceptance(record: AcceptRecord) -> str:
    """Return the record of `toolchain accept` as a Markdown page: the machine, the checks, and a table of results."""
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
