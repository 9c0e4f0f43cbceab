"""Output for a person on the terminal: tables first, then the next step.

There is one module for each kind of record. Only the command line calls them; what they share is here.
"""

import re
from collections import Counter

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

# The table of results needs this many columns. A narrower terminal wraps it instead of dropping digits.
WIDTH = 124

# Stands below times that were measured while other processes used the processors.
BUSY = "This machine was busy with other work: do not rely on these times. Measure again when it is idle."


def put(*things: object, stderr: bool = False) -> None:
    """Print things at least WIDTH columns wide; to stderr if stdout belongs to another command."""
    console = Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)
    for thing in things:
        console.print(thing)


def titled(title: str, *, narrow: bool = False) -> Table:
    """Return a table without columns; `narrow` reduces the padding, for tables with many columns."""
    return Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0) if narrow else (0, 1))


def folded(names: list[str]) -> list[str]:
    """Return node names with the number of their layer as *, each with its count: `layer.*.ffn.lin2 (6)`."""
    found = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return [f"{name} ({count})" if count > 1 else name for name, count in found.items()]
