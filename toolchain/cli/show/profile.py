"""Show the result of `toolchain profile` on the terminal."""

from rich.box import SIMPLE
from rich.table import Table

from toolchain.cli.show import put
from toolchain.energy.record import NOT_REQUESTED
from toolchain.records.profile import GroupEnergy, GroupTime, NsysRecord, ProfileResult

# Length of the bar of a group that takes the whole time of a call, in characters.
BAR = 16

LEGEND = "group: nodes of one part of the model in all layers; share: fraction of the time of a call"


def profiled(record: ProfileResult) -> None:
    """Print time and energy by group of operators, the overhead of the profiler, and what to do next."""
    tokens = record["tokens"]
    title = (
        f"{record['artefact']['file']} on {record['backend']}, {record['device']}: {record['rows']} rows of "
        f"{record['rows_from']}, {tokens['slots']} positions, {tokens['real']} of them tokens"
    )
    asked = record["whole"]["reason"] != NOT_REQUESTED
    table = _table(title, *(("J/call [95 %]", "by") if asked else ()))
    for one in record["groups"]:
        table.add_row(*_time(one), *(_energy(one) if asked else ()))
    for name, one_energy in (("remainder", record["remainder"]), ("whole", record["whole"])):
        if one_energy["energy_j"] is not None:
            table.add_row(name, "", "", "", *_energy(one_energy))
    put(table, LEGEND, *_notes(record), *_next(record))


def from_nsys(record: NsysRecord) -> None:
    """Print the time by group of operators in a report of Nsight Systems."""
    table = _table(f"{record['file']}: {record['calls']} calls, by NVTX ranges on the host's clock")
    for one in record["groups"]:
        table.add_row(*_time(one))
    others = record["not_ours"]
    put(table, *([f"{len(others)} ranges of other programs are not counted, such as {others[0]}"] if others else []))


def _table(title: str, *more: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("group", "ms/call", "share", "", *more):
        table.add_column(heading, justify="left" if heading in ("group", "", "by") else "right", no_wrap=True)
    return table


def _time(one: GroupTime) -> list[str]:
    return [one["group"], f"{one['ms']:.3f}", f"{one['share']:.1%}", "█" * round(BAR * one["share"])]


def _energy(one: GroupEnergy) -> list[str]:
    if one["energy_j"] is None:
        return [f"n/a ({one['reason']})", ""]
    interval = one["energy_ci95_j"]
    spread = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.2g}"
    method = one["method"].replace("_", " ")
    return [f"{one['energy_j']:.3g}{spread}", method if one["resolved"] else f"{method}, not resolved"]


def _notes(record: ProfileResult) -> list[str]:
    placed = record["placed_share"]
    lines = [
        f"a call takes {record['wall_ms']:.2f} ms, {record['profiled_ms']:.2f} ms with the profiler "
        f"({record['overhead']:+.1%}); "
        + ("" if placed is None else f"{placed:.1%} of the model's time belongs to a group")
    ]
    if record["time_method"] == "ablation":
        lines.append(
            "ONNX Runtime's profiler times launches, not kernels, so the time of a part is the difference from a graph "
            "in which it is removed or repeated"
        )
    return lines


def _next(record: ProfileResult) -> list[str]:
    """Return the next steps to suggest to the user, one per line."""
    lines = []
    if record["trace"]:
        lines.append(f"open {record['trace']} in https://ui.perfetto.dev")
    if record["nsys_command"]:
        lines.append(f"with Nsight Systems: {record['nsys_command']}")
        lines.append("then: toolchain profile --nsys toolchain-profile.nsys-rep")
    largest = max(record["groups"], key=lambda one: float(one["share"]))
    advice = {
        "tokenise": "the tokenizer takes the most time: serve with more processes, or send token ids",
        "copy": "copies take the most time: use larger batches",
        "other": "most of the time belongs to no part of the model: use larger batches (--batch-size)",
    }
    if largest["group"] in advice:
        lines.append(advice[largest["group"]])
    if record["whole"]["reason"] == NOT_REQUESTED:
        lines.append("next: toolchain profile --energy, for the energy of each group")
    return lines
