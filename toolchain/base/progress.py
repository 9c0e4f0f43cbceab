"""Progress on a terminal: a bar for work that counts its items, and a line with the elapsed time for all other work."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypedDict, TypeVar

Item = TypeVar("Item")

# A redraw takes about a millisecond, so two per second do not disturb a pass that is timed.
REDRAW_S = 0.5

# The line with the elapsed time appears after this time without a bar, so that short work shows none.
DELAY_S = 1.0


class Display(TypedDict):
    """Keyword arguments of rich's displays."""

    auto_refresh: bool
    redirect_stdout: bool


# A thread of rich's own would redraw in passes that are timed. It would also send what is printed to stdout, which may
# be a file, to the terminal.
DISPLAY: Display = {"auto_refresh": False, "redirect_stdout": False}

# Advances a bar by one, or by the number that it is given.
Advance = Callable[..., None]


def track(items: Iterable[Item], *, total: int | None, text: str) -> Iterator[Item]:
    """Yield `items` and advance a bar after each. A `total` of None means that their number is unknown."""
    with bar(total, text) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def bar(total: int | None, text: str, *, unit: str | None = None) -> Iterator[Advance]:
    """Yield a function that advances a bar. The bar is drawn if stderr is a terminal, except with `-q`.

    With a `unit`, such as rows, the bar shows the throughput too. A bar inside another bar is not drawn.

    A `total` of None means that the number is unknown. The bar is drawn only when it is advanced, without a thread, so
    it may be used in a pass that is timed and between measurement windows.
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
    """Return a function that counts, and calls `draw` with the count and the mean throughput every REDRAW_S."""
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
    """Show `text` and the elapsed time while the body runs, if stderr is a terminal, except with `-q`.

    A thread draws the line. It draws nothing inside of `still`.
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
    """Draw no line of `running` while the body runs: it measures time or energy, or writes to the terminal itself."""
    line = _line
    if line:
        line.pause()
    try:
        yield
    finally:
        if line:
            line.go_on()


class _Line:
    """A line with the elapsed time, which a thread draws while nobody has paused it. Any thread may pause it."""

    def __init__(self, text: str) -> None:
        self._text, self._start_s = text, time.monotonic()
        self._pauses, self._lock = 1, threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def go_on(self) -> None:
        """Take one pause back; draw if none is left."""
        with self._lock:
            self._pauses -= 1
            if self._pauses == 0:
                self._ended.clear()
                self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)
                self._thread.start()

    def pause(self) -> None:
        """Add a pause: when this returns, the line has gone from the terminal."""
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
    """Return whether a person watches: stderr is a terminal, and the log is not limited to warnings."""
    return sys.stderr.isatty() and logging.getLogger("toolchain").isEnabledFor(logging.INFO)


_drawn = False
_line: _Line | None = None
