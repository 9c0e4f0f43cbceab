"""Results side by side: their groups and names, and the text table that the terminal and Markdown show."""

from pathlib import Path

from toolchain.bundle import RESULTS
from toolchain.records.result import Result
from toolchain.report.columns import METRIC, TEXT_COLUMNS


def title(result: Result) -> str:
    """Return a title such as "distilbert on sst2 validation, 872 rows"."""
    return f"{Path(result['model']).name} on {result['task']} {result['split']}, {result['n']} rows"


def names_of(results: list[Result]) -> list[str]:
    """Return a name for each result of a group: backend and variant, and the device unless it is the CPU.

    If several results would have the same name, the name of their bundle is added.
    """
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
    """Return the column headings of the text table. The heading of the metric's column is the metric's name."""
    primary = f"{results[0]['primary']} [95 % CI]"
    return [primary if heading == METRIC else heading for heading, _ in TEXT_COLUMNS]


def rows(results: list[Result]) -> list[list[str]]:
    """Return the cells of the text table, with a row for each result."""
    return [[text(result) for _, text in TEXT_COLUMNS] for result in results]


def groups(results: list[Result]) -> list[list[Result]]:
    """Return the results in groups that are comparable in one table: the same model, task and rows."""
    found: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        found.setdefault((result["model"], result["task"], result["data_sha256"]), []).append(result)
    return list(found.values())
