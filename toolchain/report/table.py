"""Results side by side: the columns of the table on the terminal and in Markdown."""

from collections.abc import Callable
from pathlib import Path

from toolchain.bundle import RESULTS
from toolchain.evaluation.results import Result


def _metric(result: Result) -> str:
    low, high = result["metrics_ci95"][result["primary"]]
    return f"{result['metrics'][result['primary']]:.4f} [{low:.3f}, {high:.3f}]"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _utilisation(result: Result) -> str:
    """Return the share of the machine's speed that the real tokens took, %; results of older versions have none."""
    share = result.get("roofline", {}).get("model_flop_utilisation")
    return _number(None if share is None else 100 * share, 1)


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
    "util": _utilisation,
    "MB": lambda r: _number(r["peak_memory_mb"]["host"], 0),
    "mJ/row": lambda r: _number(_milli(r["energy"]["per_inference_j"]), 2),
}
"""Column heading -> its text for a result; '-' stands for what was not measured."""


def title(result: Result) -> str:
    """Return what was evaluated, in a line."""
    return f"{Path(result['model']).name} on {result['task']} {result['split']}, {result['n']} rows"


def names_of(results: list[Result]) -> list[str]:
    """Return what tells results of a group apart: backend, variant, a device that is no processor, else the folder."""
    names = [_name(result) for result in results]
    folders = [Path(result.get("file", "")).parent for result in results]
    bundles = [folder.parent.name if folder.name == RESULTS else folder.name for folder in folders]
    return [
        f"{name} of {bundle}" if names.count(name) > 1 else name for name, bundle in zip(names, bundles, strict=True)
    ]


def _name(result: Result) -> str:
    device = "" if result["device"] == "cpu" else f" {result['device']}"
    scenario = f" {result['mlperf']['scenario']}" if result.get("mlperf") else ""
    return f"{result['backend']} {result['variant']}{device}{scenario}"


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
