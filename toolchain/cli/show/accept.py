"""Show the checks of `toolchain accept` on the terminal."""

from toolchain.cli.show import put, titled
from toolchain.records.accept import AcceptRecord


def accepted(record: AcceptRecord) -> None:
    """Print every check, and the files of the report."""
    table = titled(f"{record['gpu']}, {record['tag']}")
    for heading in ("check", "outcome", "found", "s"):
        table.add_column(heading, justify="right" if heading == "s" else "left")
    for check in record["checks"]:
        table.add_row(check["name"], check["outcome"], check["detail"], f"{check['seconds']:g}")
    put(table, f"files of the report, to send in: {' and '.join(record['files'])}")
