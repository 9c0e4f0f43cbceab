"""Show a sweep on the terminal: its cells (one per combination of options), Pareto fronts, and what is left to do."""

from collections import Counter

from toolchain.base.amounts import counted
from toolchain.cli.show import put, titled
from toolchain.records.sweep import Forecast, Front, GlueScore, SweepCell, SweepRecord
from toolchain.report.cell_names import SHORT, short_name, shown, varying

# Most cells that one line names.
NAMED = 3


def swept(record: SweepRecord) -> None:
    """Print a row for each cell, reasons, the Pareto fronts, the GLUE scores, the forecast and the next command."""
    cells = record["cells"]
    differ = varying(cells)
    table = titled(f"{record['name']}: {_counts(record)}", narrow=True)
    for heading in ("cell", *differ, "state", "s"):
        table.add_column(heading, justify="right" if heading == "s" else "left", no_wrap=True)
    for cell in cells:
        values = [shown(cell, key) for key in differ]
        seconds = f"{cell['run']['seconds']:.0f}" if cell["run"] and cell["state"] == "done" else "-"
        table.add_row(cell["key"][:SHORT], *values, cell["state"], seconds)
    put(
        table,
        *_reasons(record),
        *(_front(front, cells) for front in record["fronts"]),
        *(glue(score) for score in record["glue"]),
        *_left(record["forecast"]),
        *_next(record),
    )


def _counts(record: SweepRecord) -> str:
    states = Counter(cell["state"] for cell in record["cells"])
    parts = [counted(len(record["cells"]), "cell"), *(f"{count} {state}" for state, count in states.items())]
    parts += [f"{record['excluded']} excluded"] if record["excluded"] else []
    parts += (
        [f"{record['merged']} combinations left out, because they differ from a cell only in options without effect"]
        if record["merged"]
        else []
    )
    return ", ".join(parts)


def _reasons(record: SweepRecord) -> list[str]:
    """Return a line for each reason why cells failed or did not run.

    Each line names the cells and, if they failed, the log of the first of them.
    """
    found: dict[tuple[str, str], list[SweepCell]] = {}
    for cell in record["cells"]:
        if cell["reason"]:
            found.setdefault((cell["state"], cell["reason"]), []).append(cell)
    lines = []
    for (state, reason), cells in found.items():
        keys = ", ".join(cell["key"][:SHORT] for cell in cells[:NAMED])
        more = f" and {len(cells) - NAMED} more" if len(cells) > NAMED else ""
        log = f" (log: {record['folder']}/cells/{cells[0]['name']}/log.txt)" if state == "failed" else ""
        lines.append(f"{state}: {keys}{more}: {reason}{log}")
    return lines


def _front(front: Front, cells: list[SweepCell]) -> str:
    """Return a line with a Pareto front: the names of its cells, ordered by cost."""
    known = {cell["name"]: cell for cell in cells}
    keys = varying(cells)
    unresolved = set(front["unresolved"])

    def text(name: str) -> str:
        return short_name(known[name], keys) + (" (not resolved)" if name in unresolved else "")

    members = ", ".join(map(text, front["members"])) or "no cell"
    missing = f"; cost not measured for {counted(len(front['unmeasured']), 'cell')}" if front["unmeasured"] else ""
    parts = f" ({', '.join(its)})" if (its := front.get("components")) else ""
    return f"{front['task']}, {front['metric']} against {front['cost']}{parts}: {members}{missing}"


def glue(score: GlueScore) -> str:
    """Return a line with a GLUE score."""
    points = ", ".join(f"{task} {value:.1f}" for task, value in score["points"].items())
    if score["score"] is None:
        return f"GLUE, {score['name']}: no score, {score['reason']} ({points})"
    return f"GLUE, {score['name']}: {score['score']:.1f}, the mean of 8 tasks without wnli ({points})"


def _left(forecast: Forecast) -> list[str]:
    if not forecast["cells"]:
        return []
    seconds = forecast["seconds"]
    expected = (
        "no forecast of the time before the first cell is done" if seconds is None else f"about {_duration(seconds)}"
    )
    cells, bundles = counted(forecast["cells"], "cell"), counted(forecast["builds"], "bundle")
    return [f"left: {cells}, {bundles} to build; {expected}"]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _next(record: SweepRecord) -> list[str]:
    if not any(cell["state"] == "done" for cell in record["cells"]):
        return []
    return [f"next: toolchain report {record['folder']} -o report.html"]
