"""Results as CSV, with every number unrounded."""

import csv
import io

from toolchain.records.plain import cell
from toolchain.records.result import Result


def comma_separated(results: list[Result]) -> str:
    """Return the results as CSV, with a row for each result and a column for each (dotted) key.

    Numbers are not rounded. `cell` puts a quote before a text that a spreadsheet would take for a formula.
    """
    buffer = io.StringIO()
    flat = [_flatten(result) for result in results]
    heads = list(dict.fromkeys(key for row in flat for key in row))
    writer = csv.DictWriter(buffer, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def _flatten(value: object, prefix: str = "") -> dict[str, object]:
    """Return the values nested in `value`, each by its dotted key.

    The items of a list are included if all of them are numbers, such as the ends of an interval.
    """
    if isinstance(value, list):
        value = dict(enumerate(value)) if all(isinstance(entry, int | float) for entry in value) else {}
    if isinstance(value, dict):
        parts = (_flatten(entry, f"{prefix}.{key}" if prefix else key) for key, entry in value.items())
        return {key: entry for part in parts for key, entry in part.items()}
    return {cell(prefix): cell(value)}
