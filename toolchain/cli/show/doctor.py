"""Show the findings of `toolchain doctor` on the terminal."""

from toolchain.cli.show import put, titled
from toolchain.records.doctor import DoctorRecord

MARKS = {"ok": "ok", "missing": "-", "broken": "!!"}


def examined(record: DoctorRecord) -> None:
    """Print each finding, with advice where something is missing or broken."""
    table = titled("This machine")
    for heading in ("what", "", "found, and what to do"):
        table.add_column(heading, no_wrap=not heading.startswith("found"))
    for finding in record["findings"]:
        lines = filter(None, (finding["detail"], finding["advice"]))
        table.add_row(finding["name"], MARKS[finding["state"]], "\n".join(lines))
    put(table, "ok: present and working; -: missing; !!: broken")
