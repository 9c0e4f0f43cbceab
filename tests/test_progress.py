import io
import logging
import sys

from toolchain.progress import track


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
