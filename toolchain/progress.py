"""A bar for long work, where a person is watching."""

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], *, total: int, text: str) -> Iterator[Item]:
    """Yield `items`, with a bar on stderr if that is a terminal and not told to be quiet.

    Never inside a measured window: the bar is drawn by a thread of its own.
    """
    if not sys.stderr.isatty() or not logging.getLogger("toolchain").isEnabledFor(logging.INFO):
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=text)
