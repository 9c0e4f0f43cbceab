"""Progress on a terminal: a bar for work whose items are counted, and a line with the elapsed time for other work."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypedDict, TypeVar

Item = TypeVar("Item")

# Seconds between two redraws. A redraw takes about a millisecond, so two per second do not disturb a timed pass.
REDRAW_S = 0.5

# Seconds without a bar after which the line with the elapsed time appears, so that short work does not show it.
DELAY_S = 1.0


class Display(TypedDict):
    """Keyword arguments of rich's `Progress` and `Live`."""

    auto_refresh: bool
    redirect_stdout: bool


# Without these values, a thread of rich would redraw during timed passes, and rich would send text for stdout to the
# terminal, although stdout may be a file.
DISPLAY: Display = {"auto_refresh": False, "redirect_stdout": False}

# A function that advances a bar by 1, or by the number in its argument.
Advance = Callable[..., None]


def track(items: Iterable[Item], *, total: int | None, text: str) -> Iterator[Item]:
    """Yield `items`, and advance a progress bar after each. `total` is their number; None if it is unknown."""
    with bar(total, text) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def bar(total: int | None, text: str, *, unit: str | None = None) -> Iterator[Advance]:
    """Show a progress bar while the body runs, and yield a function that advances it by 1 or by a given count.

    `total` is the number of items; None if it is unknown. With a `unit`, such as rows, the bar also shows the
    throughput. The bar is shown only if stderr is a terminal, `-q` was not given, and no other bar is shown.

    It is redrawn only when it is advanced, not by a thread, so it does not disturb time measurements in the body.
    """
    global _drawn
    if _drawn or not _is_watched():
        yield lambda count=1: None
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    _drawn = True
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[speed]}"))
    try:
        with still(), Progress(*columns, console=Console(stderr=True), transient=True, **DISPLAY) as progress:
            task = progress.add_task(text, total=total, speed="")

            def draw(done: int, speed: float) -> None:
                shown = f"{speed:,.0f} {unit}/s" if unit else ""
                progress.update(task, completed=done, speed=shown, refresh=True)

            yield _now_and_then(draw)
    finally:
        _drawn = False


def _now_and_then(draw: Callable[[int, float], None], *, clock: Callable[[], float] = time.monotonic) -> Advance:
    """Return a function that adds to a count, and calls `draw` with the count and the mean throughput (items/s).

    `draw` is called at most once in REDRAW_S seconds.
    """
    start_s, drawn_s, done = clock(), -REDRAW_S, 0

    def advance(count: int = 1) -> None:
        nonlocal drawn_s, done
        done, now_s = done + count, clock()
        if now_s - drawn_s >= REDRAW_S:
            drawn_s = now_s
            draw(done, done / max(now_s - start_s, 1e-9))

    return advance


@contextmanager
def running(text: str) -> Iterator[None]:
    """Show a line with `text` and the elapsed time while the body runs, if stderr is a terminal and `-q` was not given.

    A thread draws the line. `still` hides it for a while.
    """
    global _line
    if _line or not _is_watched():
        yield
        return
    _line = _Line(text)
    try:
        _line.go_on()
        yield
    finally:
        _line.pause()
        _line = None


@contextmanager
def still() -> Iterator[None]:
    """Hide the line of `running` while the body measures time or energy, or writes to the terminal itself."""
    line = _line
    if line:
        line.pause()
    try:
        yield
    finally:
        if line:
            line.go_on()


class _Line:
    """The line with the elapsed time that `running` shows. A thread draws it unless it is paused.

    Pauses are counted, so they may be nested. Any thread may pause the line.
    """

    def __init__(self, text: str) -> None:
        self._text, self._start_s = text, time.monotonic()
        self._pauses, self._lock = 1, threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def go_on(self) -> None:
        """End one pause. The line is drawn again if no other pause is left."""
        with self._lock:
            self._pauses -= 1
            if self._pauses == 0:
                self._ended.clear()
                self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)
                self._thread.start()

    def pause(self) -> None:
        """Begin a pause. When this returns, the line is no longer on the terminal."""
        with self._lock:
            self._pauses += 1
            if self._thread:
                self._ended.set()
                self._thread.join()
                self._thread = None

    def _draw(self) -> None:
        if self._ended.wait(DELAY_S):
            return
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        spinner = Spinner("dots")
        with Live(spinner, console=Console(stderr=True), transient=True, **DISPLAY) as live:
            while not self._ended.is_set():
                spinner.update(text=f"{self._text}, {time.monotonic() - self._start_s:.0f} s")
                live.refresh()
                self._ended.wait(REDRAW_S)


def _is_watched() -> bool:
    """Return whether progress is shown: stderr is a terminal, and `-q` does not limit the log to warnings."""
    return sys.stderr.isatty() and logging.getLogger("toolchain").isEnabledFor(logging.INFO)


_drawn = False
_line: _Line | None = None
