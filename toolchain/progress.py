"""A bar for long work, where a person is watching."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], *, total: int, text: str) -> Iterator[Item]:
    """Yield `items`, with a bar as `bar` draws it."""
    with bar(total, text) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def bar(total: int | None, text: str) -> Iterator[Callable[[], None]]:
    """Yield a function that moves a bar on by one; drawn if stderr is a terminal and not told to be quiet.

    A `total` of None stands for an unknown number.

    Never inside a measured window: the bar is drawn by a thread of its own. A bar within a bar is not drawn.
    """
    global _drawn
    if _drawn or not sys.stderr.isatty() or not logging.getLogger("toolchain").isEnabledFor(logging.INFO):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    _drawn = True
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(text, total=total)
            yield lambda: progress.advance(task)
    finally:
        _drawn = False


_drawn = False
