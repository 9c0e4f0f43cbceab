"""The tables of the benchmarks as text: drawn with lines on a terminal, in plain columns elsewhere, or in Markdown."""

import sys

from contenders import PIPELINE
from speed import Row
from targets import Verdict

from toolchain.cli.show import put, titled

HEADINGS = ("contender", "", "rows/s", "times the pipeline", "accuracy", "points below it", "time outside the runtime")
Cells = list[tuple[str, ...]]


def cells(rows: list[Row]) -> Cells:
    """Return the figures of the contenders as rows of text; the first row has the headings."""
    return [HEADINGS, *map(_cells, rows)]


def _cells(row: Row) -> tuple[str, ...]:
    times = row.to_pipeline
    return (
        row.name,
        "ours" if row.ours else "",
        f"{row.rows_per_s:.0f}",
        "1" if row.name == PIPELINE else f"{times.median:.2f} ({times.low:.2f} to {times.high:.2f})",
        f"{row.accuracy:.4f}",
        f"{row.points_below:+.2f}",
        "" if row.outside is None else f"{row.outside:.1%}",
    )


def verdicts(found: list[Verdict]) -> Cells:
    """Return the targets, the measured figures and the verdicts as rows of text; the first row has the headings."""
    headings: Cells = [("figure", "target", "measured", "verdict")]
    return headings + [
        (
            one.target.figure,
            f"{'<=' if one.target.most else '>='} {one.target.bound:g}",
            "" if one.found is None else f"{one.found:.2f}",
            one.word,
        )
        for one in found
    ]


def show(table: Cells) -> None:
    """Print a table: drawn with lines if stdout is a terminal, otherwise in plain columns."""
    if not sys.stdout.isatty():
        print(plain(table))
        return
    drawn = titled("")
    for position, heading in enumerate(table[0]):
        drawn.add_column(heading, justify="right" if _numeric(table, position) else "left", no_wrap=True)
    for row in table[1:]:
        drawn.add_row(*row)
    put(drawn)


def plain(table: Cells) -> str:
    """Return the table with its columns padded by spaces."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    sides = [">" if _numeric(table, position) else "<" for position in range(len(widths))]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in table
    ]
    return "\n".join([*lines, ""])


def markdown(table: Cells) -> str:
    """Return the table in Markdown."""
    rule = ["---:" if _numeric(table, position) else "---" for position in range(len(table[0]))]
    lines = [table[0], tuple(rule), *table[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"


def _numeric(table: Cells, position: int) -> bool:
    """Return whether the column at `position` has numbers, which are aligned to the right."""
    return any(row[position][:1].isdigit() or row[position][:1] in "+-" for row in table[1:] if row[position])
