"""Findings about a machine."""

from toolchain.cli.show import put, titled
from toolchain.records.doctor import DoctorRecord

MARKS = {"ok": "ok", "missing": "-", "broken": "!!"}


def examined(record: DoctorRecord) -> None:
    """Print each finding, with advice where something is missing or broken."""
    table = titled("This machine")
    for heading in ("what", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in record["findings"]:
        table.add_row(finding["name"], MARKS[finding["state"]], finding["detail"], finding["advice"])
    put(table)
