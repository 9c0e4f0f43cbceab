"""Printing of records on the terminal for people: tables first, then the suggested next command.

There is one module for each kind of record. Only the command line calls these modules. This file has the functions that
they share.
"""

import os
import re
import sys
import textwrap
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from toolchain.base.progress import still
from toolchain.cli.output import Plain
from toolchain.records.plain import printable

# Width of a table, in characters, if the output is not a terminal but, for example, a file.
WIDTH = 124

# Texts of empty cells. A column of a wide table is left out if it has only such cells.
NOTHING = ("", "-")

# A line that is a command, perhaps after a few words. It is not wrapped, because it must be copied as one line.
COMMAND = re.compile(r"^(\w+( \w+){0,3}: )?toolchain |^start: |^with ")

# A note below times that were measured while other processes used the processors.
BUSY = "This machine was busy with other work: do not rely on these times. Measure again when it is idle."


class _Console(Console):
    """A console that escapes control characters in each text. Headings are bold on a terminal unless NO_COLOR is set.

    It escapes the texts itself and writes past `Plain`, which would also escape the codes that make headings bold.
    """

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(
            file=sys.stdout.stream if not stderr and isinstance(sys.stdout, Plain) else None,
            stderr=stderr,
            highlight=False,
            markup=False,
            soft_wrap=True,
            color_system=None if os.environ.get("NO_COLOR") else "auto",
        )

    def render_str(self, text: str, **options: Any) -> Text:  # Any: the options that rich passes
        """Return a text with control characters escaped.

        rich calls this for each string that it prints: titles, headings, cells and lines.
        """
        return super().render_str(printable(text), **options)


def put(*things: object, stderr: bool = False) -> None:
    """Print texts and tables to stdout, or to stderr if stdout belongs to another command.

    A table that is wider than the terminal loses its empty columns and wide gaps, and the text in its cells is wrapped.
    If that is not enough, the table is printed row by row, one cell per line. Text is wrapped between words; a command
    to copy is not wrapped.
    """
    console = _Console(stderr=stderr)
    terminal = console.width if console.is_terminal else WIDTH
    with still():
        for thing in things:
            console.width = max(terminal, WIDTH)
            if isinstance(thing, Table) and thing.title and console.is_terminal:
                thing.title = "\n".join(_wrapped(line, terminal) for line in str(thing.title).split("\n"))
            if isinstance(thing, Table) and console.measure(thing).maximum > terminal:
                _drop_empty_columns(thing)
                if _least_width(thing) > terminal:
                    thing.padding, thing.show_edge = 0, False  # one space between the columns
                console.width = terminal
                console.print(thing if _least_width(thing) <= terminal else _blocks(thing, terminal))
            else:
                console.print(_wrapped(thing, terminal) if isinstance(thing, str) and console.is_terminal else thing)


def _wrapped(text: str, width: int, *, hang: int = 2) -> str:
    """Return a line of text, wrapped between words to `width` characters. A command is not wrapped.

    Further lines are indented `hang` characters more than the first.
    """
    text = printable(text)  # before wrapping, which would treat some control characters as spaces
    if COMMAND.search(text):
        return text
    indent = " " * (len(text) - len(text.lstrip()) + hang)
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _drop_empty_columns(table: Table) -> None:
    table.columns = [column for column in table.columns if any(cell not in NOTHING for cell in _texts(column)[1:])]


def _least_width(table: Table) -> int:
    """Return the smallest width, in characters, in which a table fits without breaking a word.

    Cells of columns that must not wrap are not broken either.
    """
    _, right, _, left = table.padding
    between = len(table.columns) - 1 + 2 * table.show_edge
    return sum(_least(column) + left + right for column in table.columns) + between


def _least(column: Column) -> int:
    texts = _texts(column)
    return max(len(part) for text in texts for part in (text.split("\n") if column.no_wrap else text.split() or [""]))


def _texts(column: Column) -> list[str]:
    return [printable(str(text)) for text in (column.header, *column.cells)]


def _blocks(table: Table, width: int) -> str:
    """Return a table as text that has one line for each cell.

    A row begins with its first cell. Its other cells follow, each with its heading; empty cells are left out.
    """
    headings, *rows = zip(*(_texts(column) for column in table.columns), strict=True)
    headings = tuple(heading.replace("\n", " ") for heading in headings)
    longest = max(map(len, headings))
    lines = [str(table.title)] if table.title else []
    for first, *rest in rows:
        lines += ["", first]
        lines += [
            _wrapped(f"  {name:{longest}}  {cell}", width, hang=longest + 2)
            for name, cell in zip(headings[1:], rest, strict=True)
            if cell.strip() not in NOTHING
        ]
    return "\n".join(lines)


def titled(title: str, *, narrow: bool = False) -> Table:
    """Return an empty table with a title; `narrow` reduces the padding, for tables with many columns."""
    padding = (0, 1, 0, 0) if narrow else (0, 1)
    return Table(title=title, title_justify="left", box=SIMPLE, padding=padding, show_edge=not narrow)


def folded(names: list[str]) -> list[str]:
    """Return node names, in which names that differ only in the number of their layer are merged into one.

    `layer.*.lin2 (6)` stands for six such names.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
    return [f"{pattern} ({len(alike)})" if len(alike) > 1 else alike[0] for pattern, alike in found.items()]
