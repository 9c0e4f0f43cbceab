"""Results as CSV, with every number unrounded."""

import csv
import io

from toolchain.records.plain import cell
from toolchain.records.result import Result


def comma_separated(results: list[Result]) -> str:
    """Return the results as CSV: a row a result, a column a key, numbers unrounded, and texts as `cell` writes them."""
    buffer = io.StringIO()
    flat = [_flatten(result) for result in results]
    heads = list(dict.fromkeys(key for row in flat for key in row))
    writer = csv.DictWriter(buffer, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def _flatten(value: object, prefix: str = "") -> dict[str, object]:
    """Return nested keys joined by dots. A list is kept if it has only numbers, such as an interval."""
    if isinstance(value, list):
        value = dict(enumerate(value)) if all(isinstance(entry, int | float) for entry in value) else {}
    if isinstance(value, dict):
        parts = (_flatten(entry, f"{prefix}.{key}" if prefix else key) for key, entry in value.items())
        return {key: entry for part in parts for key, entry in part.items()}
    return {cell(prefix): cell(value)}
