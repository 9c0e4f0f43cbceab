"""Drops with their bounds and verdicts."""

from typing import Any

from toolchain.cli.show import put, titled


def compared(done: dict[str, Any]) -> None:
    """Print drops with their bounds and verdicts, and what the rows can tell at all."""
    records = done["comparisons"]
    first = records[0]
    title = f"{first['task']} {first['split']}, {first['n']} rows: {first['metric']} against {first['baseline_name']}"
    table = titled(title, narrow=True)
    bounds = f"drop, points [{100 * first['confidence']:g} % each side]"
    for heading in ("candidate", "from", "to", bounds, "lost", "gained", "p", "verdict"):
        table.add_column(heading, justify="left" if heading in ("candidate", "verdict") else "right", no_wrap=True)
    for record in records:
        table.add_row(*_comparison(record))
    put(table, *dict.fromkeys(line for record in records for line in _reading(record)))


def _comparison(record: dict[str, Any]) -> list[str]:
    low, high = ("?" if bound is None else f"{bound:+.2f}" for bound in record["bounds_points"])
    flips, p = record["flips"], record["p_value"]
    return [
        record["candidate_name"],
        f"{record['baseline']:.4f}",
        f"{record['candidate']:.4f}",
        f"{record['drop_points']:+.2f} [{low}, {high}]",
        str(flips["lost"]) if flips else "-",
        str(flips["gained"]) if flips else "-",
        "-" if p is None else f"{p:.3f}",
        record["verdict"] or "-",
    ]


def _reading(record: dict[str, Any]) -> list[str]:
    """Return what the rows can show at all."""
    smallest = record["detectable_points"]
    if smallest is None:
        return []
    return [
        f"{record['candidate_name']}: a true drop of {smallest:.2f} points would show 4 times in 5 "
        f"with {record['n']} rows"
    ]
