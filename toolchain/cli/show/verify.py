"""Show the cases of `toolchain verify` on the terminal."""

from toolchain.cli.show import put, titled
from toolchain.records.verify import VerifyRecord


def verified(record: VerifyRecord) -> None:
    """Print each case with its difference and its tolerance."""
    emulated = ", float16 emulated on the CPU" if record["halves"] else ""
    table = titled(f"{record['artefact']}, {record['rows']}{emulated}", narrow=True)
    for heading in ("case", "difference", "tolerance", "", "note"):
        table.add_column(
            heading, justify="right" if heading in ("difference", "tolerance") else "left", no_wrap=heading != "note"
        )
    for case in record["cases"]:
        numbers = ("-" if value is None else f"{value:.1e}" for value in (case["difference"], case["tolerance"]))
        table.add_row(case["name"], *numbers, "ok" if case["passed"] else "FAILED", case["note"])
    put(
        table,
        "difference: the largest difference of a logit; a case is ok if that is within the tolerance",
        _verdict(record),
    )


def _verdict(record: VerifyRecord) -> str:
    failed = [case["name"] for case in record["cases"] if not case["passed"]]
    count = len(record["cases"])
    return f"{len(failed)} of {count} cases failed: {', '.join(failed)}" if failed else f"all {count} cases passed"
