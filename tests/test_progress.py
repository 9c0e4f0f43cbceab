import io
import logging
import re
import sys
import threading

from toolchain.progress import _now_and_then, bar, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_nothing_is_drawn_where_nobody_watches(capsys):
    assert list(track([1, 2], total=2, text="calibrating")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_bar_is_drawn_on_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    logging.getLogger("toolchain").setLevel(logging.INFO)
    assert list(track([1, 2], total=2, text="calibrating")) == [1, 2]
    assert "calibrating" in sys.stderr.getvalue()


def test_a_bar_is_redrawn_now_and_then_with_the_mean_speed():
    now_s, drawn = 10.0, []
    advance = _now_and_then(lambda done, speed: drawn.append((done, speed)), clock=lambda: now_s)
    for _ in range(20):
        now_s += 0.25
        advance(3)
    assert [done for done, _ in drawn] == list(range(3, 61, 6))
    assert drawn[-1] == (57, 57 / 4.75)


def test_a_bar_shows_speed_and_starts_no_thread(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    logging.getLogger("toolchain").setLevel(logging.INFO)
    threads = threading.active_count()
    with bar(9, "evaluating", unit="rows") as advance:
        advance(4)
        assert threading.active_count() == threads
    assert re.search(r"\d rows/s", sys.stderr.getvalue())
