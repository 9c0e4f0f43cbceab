"""Results side by side: groups that are comparable, names of results, and the table of the terminal and of Markdown."""

from pathlib import Path

from toolchain.bundle import RESULTS
from toolchain.records.result import Result
from toolchain.report.columns import METRIC, TEXT_COLUMNS


def title(result: Result) -> str:
    """Return model, task, split and number of rows in one line."""
    return f"{Path(result['model']).name} on {result['task']} {result['split']}, {result['n']} rows"


def names_of(results: list[Result]) -> list[str]:
    """Return a name for each result of a group: backend, variant, GPU, and the bundle where names would be equal."""
    names = [_name(result) for result in results]
    folders = [Path(result.get("file", "")).parent for result in results]
    bundles = [folder.parent.name if folder.name == RESULTS else folder.name for folder in folders]
    return [
        f"{name} of {bundle}" if names.count(name) > 1 else name for name, bundle in zip(names, bundles, strict=True)
    ]


def _name(result: Result) -> str:
    device = "" if result["device"] == "cpu" else f" {result['device']}"
    mlperf = result.get("mlperf")
    scenario = f" {mlperf['scenario']}" if mlperf else ""
    return f"{result['backend']} {result['variant']}{device}{scenario}"


def headings(results: list[Result]) -> list[str]:
    """Return the column headings; that of the metric is its name."""
    primary = f"{results[0]['primary']} [95 % CI]"
    return [primary if heading == METRIC else heading for heading, _ in TEXT_COLUMNS]


def rows(results: list[Result]) -> list[list[str]]:
    """Return the cells of the table, one row a result."""
    return [[text(result) for _, text in TEXT_COLUMNS] for result in results]


def groups(results: list[Result]) -> list[list[Result]]:
    """Return groups of results that one table can compare: those of the same model, task and rows."""
    found: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        found.setdefault((result["model"], result["task"], result["data_sha256"]), []).append(result)
    return list(found.values())
