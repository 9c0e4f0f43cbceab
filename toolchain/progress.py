"""A progress bar for long work, on a terminal."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

# A redraw takes about a millisecond, so two per second do not disturb a pass that is timed.
REDRAW_S = 0.5

# Advances a bar by one, or by the number that it is given.
Advance = Callable[..., None]


def track(items: Iterable[Item], *, total: int, text: str) -> Iterator[Item]:
    """Yield `items` and advance a bar after each."""
    with bar(total, text) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def bar(total: int | None, text: str, *, unit: str | None = None) -> Iterator[Advance]:
    """Yield a function that advances a bar. The bar is drawn if stderr is a terminal, except with `-q`.

    With a `unit`, such as rows, the bar shows the throughput too. A bar inside another bar is not drawn.

    The bar is drawn only when it is advanced, without a thread, so it may be used in a pass that is timed and between
    measurement windows. A `total` of None means that the number is unknown. A thread draws that bar, so it must not be
    used there.
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
    """Return a function that counts, and calls `draw` with the count and the mean throughput every REDRAW_S."""
    start_s, drawn_s, done = clock(), -REDRAW_S, 0

    def advance(count: int = 1) -> None:
        nonlocal drawn_s, done
        done, now_s = done + count, clock()
        if now_s - drawn_s >= REDRAW_S:
            drawn_s = now_s
            draw(done, done / max(now_s - start_s, 1e-9))

    return advance


_drawn = False
