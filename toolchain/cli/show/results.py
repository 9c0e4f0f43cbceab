"""Results, side by side."""

from typing import Any

from rich.table import Table

from toolchain.cli.show import put, titled
from toolchain.energy import text
from toolchain.mlperf import text as mlperf
from toolchain.report.table import headings, rows, title


def result(one: dict[str, Any]) -> None:
    """Print one result and where it was kept."""
    put(
        _table([one]),
        *text.describe(one["energy"]),
        *(mlperf.describe(one["mlperf"]) if one.get("mlperf") else []),
        f"kept in {one['file']}; side by side: toolchain report RESULT...",
    )


def demo(done: dict[str, Any]) -> None:
    """Print the demo's table and what to try next."""
    put(
        _table(done["results"]),
        f"bundle: {done['build']['bundle']}   report: {done['report']}   page: {done['page']}",
        "next: toolchain build -m YOUR_CHECKPOINT --task sst2 --data DIR --precision int8",
    )


def _table(results: list[dict[str, Any]]) -> Table:
    """Return results side by side."""
    table = titled(title(results[0]), narrow=True)
    for index, heading in enumerate(headings(results)):
        table.add_column(heading, justify="right" if index > 2 else "left", no_wrap=True)
    for cells in rows(results):
        table.add_row(*cells)
    return table
