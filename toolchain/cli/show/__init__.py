"""What a person reads on the terminal: tables first, then the next step.

One module for each noun that is shown, called by the command line alone; what they share is here.
"""

import re
from collections import Counter

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

WIDTH = 124
"""What the table of results needs; a narrower terminal wraps it, rather than losing digits."""


def put(*things: object, stderr: bool = False) -> None:
    """Print things as wide as the widest table needs; to stderr where stdout is somebody else's."""
    console = Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)
    for thing in things:
        console.print(thing)


def titled(title: str, *, narrow: bool = False) -> Table:
    """Return a table that has no columns yet; `narrow` leaves room for many of them."""
    return Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0) if narrow else (0, 1))


def folded(names: list[str]) -> list[str]:
    """Return names with their layer's number as *, and how many they are."""
    found = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return [f"{name} ({count})" if count > 1 else name for name, count in found.items()]
