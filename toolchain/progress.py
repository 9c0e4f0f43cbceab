"""A bar for long work, where a person is watching."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

REDRAW_S = 0.5
"""A drawing takes about a millisecond, which a pass that is timed should not notice."""

Advance = Callable[..., None]
"""Moves a bar on: by one, or by the number that it is given."""


def track(items: Iterable[Item], *, total: int, text: str) -> Iterator[Item]:
    """Yield `items`, with a bar as `bar` draws it."""
    with bar(total, text) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def bar(total: int | None, text: str, *, unit: str | None = None) -> Iterator[Advance]:
    """Yield a function that moves a bar on; drawn if stderr is a terminal and not told to be quiet.

    With a `unit`, such as rows, the speed stands beside it. A bar within a bar is not drawn.

    It is drawn only when it is moved on, so that it may stand in what is timed, and moves between windows that are
    measured. A `total` of None stands for an unknown number: that bar is drawn by a thread of its own, never there.
    """
    global _drawn
    if _drawn or not sys.stderr.isatty() or not logging.getLogger("toolchain").isEnabledFor(logging.INFO):
        yield lambda count=1: None
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    _drawn = True
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[speed]}"))
    live = total is None
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=live) as progress:
            task = progress.add_task(text, total=total, speed="")

            def draw(done: int, speed: float) -> None:
                shown = f"{speed:,.0f} {unit}/s" if unit else ""
                progress.update(task, completed=done, speed=shown, refresh=not live)

            yield _now_and_then(draw)
    finally:
        _drawn = False


def _now_and_then(draw: Callable[[int, float], None], *, clock: Callable[[], float] = time.monotonic) -> Advance:
    """Return what counts, and calls `draw` with the count and the mean speed if it did not a moment ago."""
    start_s, drawn_s, done = clock(), -REDRAW_S, 0

    def advance(count: int = 1) -> None:
        nonlocal drawn_s, done
        done, now_s = done + count, clock()
        if now_s - drawn_s >= REDRAW_S:
            drawn_s = now_s
            draw(done, done / max(now_s - start_s, 1e-9))

    return advance


_drawn = False
