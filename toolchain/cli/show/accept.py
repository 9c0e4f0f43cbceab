"""The checks of an acceptance."""

from typing import Any

from toolchain.cli.show import put, titled


def accepted(record: dict[str, Any]) -> None:
    """Print every check, and where the report is."""
    table = titled(f"{record['gpu']}, {record['tag']}")
    for heading in ("check", "outcome", "found", "s"):
        table.add_column(heading, justify="right" if heading == "s" else "left")
    for check in record["checks"]:
        table.add_row(check["name"], check["outcome"], check["detail"], f"{check['seconds']:g}")
    put(table, f"send in: {' and '.join(record['files'])}")
