"""What a machine has and lacks."""

from typing import Any

from toolchain.cli.show import put, titled

MARKS = {"ok": "ok", "missing": "-", "broken": "!!"}


def examined(found: dict[str, Any]) -> None:
    """Print what was found, and advice for what was not."""
    table = titled("This machine")
    for heading in ("what", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for entry in found["findings"]:
        table.add_row(entry["name"], MARKS[entry["state"]], entry["detail"], entry["advice"])
    put(table)
