"""The formats of a report: the format is chosen by its name, or by the suffix of the file to write."""

import json
from collections.abc import Callable
from pathlib import Path

from toolchain.errors import UsageError
from toolchain.records.result import Result
from toolchain.report.csv import comma_separated
from toolchain.report.html import html
from toolchain.report.inputs import Material
from toolchain.report.markdown import markdown
from toolchain.report.optimum import optimum_benchmark


def as_json(results: list[Result]) -> str:
    """Return the results as a JSON list."""
    return json.dumps(results, indent=2, ensure_ascii=False) + "\n"


TABLES: dict[str, Callable[[list[Result]], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "json": as_json,
    "optimum-benchmark": optimum_benchmark,
}
HTML = "html"
SUFFIXES = {".md": "md", ".csv": "csv", ".json": "json", ".html": HTML, ".htm": HTML}


def format_for(output: Path | None) -> str:
    """Return the name of the format for a file's suffix: a value of SUFFIXES, or `md` for other suffixes or no file."""
    return SUFFIXES.get(output.suffix.lower(), "md") if output else "md"


def render(material: Material, name: str) -> str:
    """Return a report in the format `name`.

    Raises:
        UsageError: there are no results, and this format shows nothing but results.
    """
    if name == HTML:
        return html(material)
    if not material.results:
        raise UsageError(
            f"--format {name}: this format shows only results, and none was given. Choose html, or give a result."
        )
    return TABLES[name](material.results)
