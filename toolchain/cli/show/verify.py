"""The cases of a verification."""

from toolchain.cli.show import put, titled
from toolchain.records.verify import VerifyRecord


def verified(record: VerifyRecord) -> None:
    """Print each case with its difference and its tolerance."""
    emulated = ", float16 rounded on the CPU" if record["halves"] else ""
    table = titled(f"{record['artefact']}, {record['rows']}{emulated}")
    for heading in ("case", "difference", "tolerance", "", "note"):
        table.add_column(heading, justify="right" if heading in ("difference", "tolerance") else "left")
    for case in record["cases"]:
        numbers = ("-" if value is None else f"{value:.1e}" for value in (case["difference"], case["tolerance"]))
        table.add_row(case["name"], *numbers, "ok" if case["passed"] else "FAILED", case["note"])
    put(table)
