"""What a person reads on the terminal about where time and energy go."""

from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from toolchain.cli.show import put

BAR = 16
"""Characters of a share of 1."""


def profiled(record: dict[str, Any]) -> None:
    """Print the groups of one batch, how much the profiler slowed it down, and what to do next."""
    tokens = record["tokens"]
    title = (
        f"{record['artefact']['file']} on {record['backend']}, {record['device']}: {record['rows']} rows of "
        f"{record['rows_from']}, {tokens['slots']} positions, {tokens['real']} of them tokens"
    )
    table = _table(title, "J/call [95 %]", "by")
    for one in record["groups"]:
        table.add_row(*_time(one), *_energy(one))
    for name in ("remainder", "whole"):
        if record[name]["energy_j"] is not None:
            table.add_row(name, "", "", "", *_energy(record[name]))
    put(table, *_notes(record), *_next(record))


def from_nsys(record: dict[str, Any]) -> None:
    """Print the groups of a recording of Nsight Systems."""
    table = _table(f"{record['file']}: {record['calls']} calls, by NVTX ranges on the host's clock")
    for one in record["groups"]:
        table.add_row(*_time(one))
    others = record["not_ours"]
    put(table, *([f"not counted, as they are not ours: {len(others)} ranges, {others[0]} first"] if others else []))


def _table(title: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("group", "ms/call", "share", "", *more):
        table.add_column(heading, justify="left" if heading in ("group", "", "by") else "right", no_wrap=True)
    return table


def _time(one: dict[str, Any]) -> list[str]:
    return [one["group"], f"{one['ms']:.3f}", f"{one['share']:.1%}", "█" * round(BAR * one["share"])]


def _energy(one: dict[str, Any]) -> list[str]:
    if one["energy_j"] is None:
        return [f"n/a ({one['reason']})", ""]
    interval = one["energy_ci95_j"]
    spread = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.2g}"
    method = one["method"].replace("_", " ")
    return [f"{one['energy_j']:.3g}{spread}", method if one["resolved"] else f"{method}, not resolved"]


def _notes(record: dict[str, Any]) -> list[str]:
    placed = record["placed_share"]
    lines = [
        f"a call takes {record['wall_ms']:.2f} ms, and {record['profiled_ms']:.2f} ms with the profiler "
        f"({record['overhead']:+.1%}); " + ("" if placed is None else f"{placed:.1%} of the model's time has a place")
    ]
    if record["time_method"] == "ablation":
        lines.append(
            "ONNX Runtime's profiler sees kernels queued, not run: times are differences to graphs without each part"
        )
    return lines


def _next(record: dict[str, Any]) -> list[str]:
    """Return what to do next."""
    lines = []
    if record["trace"]:
        lines.append(f"open {record['trace']} in https://ui.perfetto.dev")
    if record["nsys_command"]:
        lines.append(f"with Nsight Systems: {record['nsys_command']}")
        lines.append("then: toolchain profile --nsys toolchain-profile.nsys-rep")
    largest = max(record["groups"], key=lambda one: float(one["share"]))
    advice = {
        "tokenise": "the tokenizer takes the most time: serve with more processes, or send ids",
        "copy": "copies take the most time: use larger batches",
        "other": "most time is in no part of the model: calls are too small; use larger batches (--batch-size)",
    }
    if largest["group"] in advice:
        lines.append(advice[largest["group"]])
    if record["whole"]["reason"] == "not_requested":
        lines.append("next: toolchain profile --energy, for joules by group")
    return lines
