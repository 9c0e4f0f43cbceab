"""The cases of a verification."""

from typing import Any

from toolchain.cli.show import put, titled


def verified(found: dict[str, Any]) -> None:
    """Print each case with its difference and tolerance."""
    table = titled(f"{found['artefact']}, {found['rows']}")
    for heading in ("case", "difference", "allowed", "", "note"):
        table.add_column(heading, justify="right" if heading in ("difference", "allowed") else "left")
    for case in found["cases"]:
        numbers = ("-" if case[key] is None else f"{case[key]:.1e}" for key in ("difference", "tolerance"))
        table.add_row(case["name"], *numbers, "ok" if case["passed"] else "FAILED", case["note"])
    put(table)
