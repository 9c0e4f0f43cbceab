import io
import logging
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from toolchain.base import progress
from toolchain.base.progress import _now_and_then, bar, running, still, track
from toolchain.runtimes import open_runtime


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


def watch(monkeypatch):
    """Make stderr a terminal, on which the line of `running` appears at once; return the event that it has appeared."""
    shown = threading.Event()

    class Watched(Terminal):
        def write(self, text):
            written = super().write(text)
            if "exporting, " in text:
                shown.set()
            return written

    monkeypatch.setattr("sys.stderr", Watched())  # not in a fixture: pytest sets stderr again before the test
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "DELAY_S", 0.0)
    logging.getLogger("toolchain").setLevel(logging.INFO)
    return shown


def drawing():
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_work_without_a_bar_shows_its_time(capsys, monkeypatch):
    shown = watch(monkeypatch)
    with running("exporting"):
        assert shown.wait(60)
        sys.stdout.write("the result\n")
    assert re.search(r"exporting, \d+ s", sys.stderr.getvalue())
    assert capsys.readouterr().out == "the result\n"
    assert not drawing()


def test_no_thread_draws_while_something_is_timed(monkeypatch):
    watch(monkeypatch)
    with running("exporting"):
        with still(), still():
            assert not drawing()
        with bar(2, "calibrating"):
            assert not drawing()
        assert drawing()
        with ThreadPoolExecutor(3) as pool:  # as the engines of a service, each in its thread
            held = [still() for _ in range(3)]
            list(pool.map(lambda one: one.__enter__(), held))
            assert not drawing()
            list(pool.map(lambda one: one.__exit__(None, None, None), held))
        assert drawing()


def test_no_thread_draws_while_a_runtime_is_open(monkeypatch, exported):
    watch(monkeypatch)
    with running("exporting"), open_runtime("ort", exported["distilbert"], device="cpu"):
        assert not drawing()


def test_no_time_is_shown_with_quiet_or_in_a_log(monkeypatch):
    watch(monkeypatch)
    logging.getLogger("toolchain").setLevel(logging.WARNING)
    with running("exporting"):
        assert not drawing()
    logging.getLogger("toolchain").setLevel(logging.INFO)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with running("exporting"):
        assert not drawing()
