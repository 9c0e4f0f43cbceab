"""Output for a person on the terminal: tables first, then the next step.

There is one module for each kind of record. Only the command line calls them; what they share is here.
"""

import re

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

# Columns that a table may have where nobody's terminal breaks its lines, such as a file.
WIDTH = 124

# Stands below times that were measured while other processes used the processors.
BUSY = "This machine was busy with other work: do not rely on these times. Measure again when it is idle."


def put(*things: object, stderr: bool = False) -> None:
    """Print things; to stderr if stdout belongs to another command.

    A table that is wider than the terminal is printed row by row, one cell a line.
    """
    console = Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)
    terminal = console.width if console.is_terminal else WIDTH
    console.width = max(console.width, WIDTH)
    for thing in things:
        wide = isinstance(thing, Table) and console.measure(thing).maximum > terminal
        console.print(_blocks(thing) if isinstance(thing, Table) and wide else thing)


def _blocks(table: Table) -> str:
    """Return a table as text: a row begins with its first cell, and each other cell that says something is a line."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    headings = [str(column.header) for column in table.columns]
    longest = max(map(len, headings), default=0)
    lines = [str(table.title)] if table.title else []
    for first, *rest in zip(*columns, strict=True):
        lines += ["", first]
        lines += [
            f"  {name:{longest}}  {cell}" for name, cell in zip(headings[1:], rest, strict=True) if cell.strip("- ")
        ]
    return "\n".join(lines)


def titled(title: str, *, narrow: bool = False) -> Table:
    """Return a table without columns; `narrow` reduces the padding, for tables with many columns."""
    return Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0) if narrow else (0, 1))


def folded(names: list[str]) -> list[str]:
    """Return node names; those that differ in the number of their layer are one, with a count: `layer.*.lin2 (6)`."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
    return [f"{pattern} ({len(alike)})" if len(alike) > 1 else alike[0] for pattern, alike in found.items()]
