"""What a person reads on the terminal: tables first, then the next step."""

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from toolchain import report

MARKS = {"ok": "ok", "missing": "-", "broken": "!!"}


WIDTH = 100
"""What the table of results needs; a narrower terminal wraps it, rather than losing digits."""


def _print(*things: object) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)
    for thing in things:
        console.print(thing)


def _results_table(results: list[dict[str, Any]]) -> Table:
    """Return results side by side."""
    table = Table(title=report.title(results[0]), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for index, heading in enumerate(report.headings(results)):
        table.add_column(heading, justify="right" if index > 2 else "left", no_wrap=True)
    for cells in report.rows(results):
        table.add_row(*cells)
    return table


def result(one: dict[str, Any]) -> None:
    """Print one result and where it was kept."""
    energy = one["energy"]
    note = f"energy: {energy['status']} ({energy['reason']})"
    _print(_results_table([one]), note, f"kept in {one['file']}; side by side: toolchain report RESULT...")


def built(done: dict[str, Any]) -> None:
    """Print what a build made, or would make."""
    if "would_do" in done:
        _print(f"would make {done['bundle']}: {', '.join(done['would_do'])}")
        return
    if done["up_to_date"]:
        _print(f"{done['bundle']} is up to date: nothing done ({', '.join(done['skipped'])}).")
        if "gate" in done:
            compared({"comparisons": done["gate"]})
        return
    _print(f"{done['bundle']}: {', '.join(done['done'])} done" + _and_skipped(done["skipped"]))
    parity = done["export"]["parity"]
    _print(f"  model.onnx differs from PyTorch by at most {parity['max_abs_logit_difference']:.1e}")
    if "quantize" in done:
        for file, found in done["quantize"]["products_on_cpu"].items():
            total = found["integer"] + found["float"]
            _print(f"  {file}: {found['integer']} of {total} matrix products in integers on this CPU")
    if "gate" in done:
        compared({"comparisons": done["gate"]})
    _print(f"next: toolchain eval {done['bundle']}")


def _and_skipped(skipped: list[str]) -> str:
    return f"; {', '.join(skipped)} unchanged" if skipped else ""


def compared(done: dict[str, Any]) -> None:
    """Print drops with their bounds and verdicts, and what the rows can tell at all."""
    records = done["comparisons"]
    first = records[0]
    title = f"{first['task']} {first['split']}, {first['n']} rows: {first['metric']} against {first['baseline_name']}"
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    bounds = f"drop, points [{100 * first['confidence']:g} % each side]"
    for heading in ("candidate", "from", "to", bounds, "lost", "gained", "p", "verdict"):
        table.add_column(heading, justify="left" if heading in ("candidate", "verdict") else "right", no_wrap=True)
    for record in records:
        table.add_row(*_comparison(record))
    _print(table, *dict.fromkeys(line for record in records for line in _reading(record)))


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
    return [f"{record['candidate_name']}: a true drop of {smallest:.2f} points would show 4 times in 5 "
            f"with {record['n']} rows"]  # fmt: skip


def demo(done: dict[str, Any]) -> None:
    """Print the demo's table and what to try next."""
    _print(
        _results_table(done["results"]),
        f"bundle: {done['build']['bundle']}   report: {done['report']}",
        "next: toolchain build -m YOUR_CHECKPOINT --task sst2 --data DIR --precision int8",
    )


def doctor(found: dict[str, Any]) -> None:
    """Print what was found, and advice for what was not."""
    table = Table(title="This machine", title_justify="left", box=SIMPLE)
    for heading in ("what", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for entry in found["findings"]:
        table.add_row(entry["name"], MARKS[entry["state"]], entry["detail"], entry["advice"])
    _print(table)
