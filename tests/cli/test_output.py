"""What a command prints is text, and it prints into its own files alone."""

import contextlib
import io
import logging
import os
import re
import subprocess
import sys

import pytest

from toolchain.cli import COMMANDS, main
from toolchain.cli.output import log, set_up_logging
from toolchain.cli.show import put, titled
from toolchain.errors import InputError

EVIL = "\x1b]0;title\x07\x1b[2J\x9b2J\r"
SHOWN = r"\u001b]0;title\u0007\u001b[2J\u009b2J\u000d"


def test_results_logs_and_errors_have_no_control_characters(monkeypatch, capsys):
    def run(args):
        sys.stdout.write(f"label {EVIL}\n")
        log.warning("column %s", EVIL)
        raise InputError(f"server {EVIL}")

    monkeypatch.setattr(type(COMMANDS["doctor"]), "load_run", lambda self: run)
    out = sys.stdout
    assert main(["doctor"]) == 1
    assert sys.stdout is out
    said = capsys.readouterr()
    assert said.out == f"label {SHOWN}\n"
    assert said.err == f"column {SHOWN}\nerror: server {SHOWN}\n"


def test_a_warning_is_shown_once_unless_it_is_an_event_of_a_service(capsys):
    set_up_logging(0)
    for _ in range(3):
        log.getChild("data.rows").warning("%d rows", 3)
        log.getChild("serve.server").warning("a client left")
        log.info("a step")
    said = capsys.readouterr().err.splitlines()
    assert [said.count(line) for line in ("3 rows", "a client left", "a step")] == [1, 3, 3]


def hostile_table(args):
    table = titled(f"title {EVIL}")
    for number in range(1 if args.quiet else 9):  # nine columns do not fit, and are printed row by row
        table.add_column(f"heading {EVIL}{number}", no_wrap=True)
    table.add_row(*[f"cell {EVIL}"] * len(table.columns))
    put(table, f"line {EVIL}")


@pytest.fixture
def on_a_terminal(monkeypatch):
    """Return a function that runs `hostile_table` on a pseudo-terminal, and returns what the terminal received."""
    monkeypatch.setattr(type(COMMANDS["doctor"]), "load_run", lambda self: hostile_table)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def run(*words):
        reader, writer = os.openpty()
        with open(writer, "w") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert main(["doctor", *words]) == 0
        received = b""
        with contextlib.suppress(OSError):  # the end of what a closed terminal received
            while part := os.read(reader, 1 << 16):
                received += part
        return received.decode()

    return run


@pytest.mark.parametrize("words", [(), ("-q",)])
def test_a_table_on_a_terminal_obeys_no_text_in_it(on_a_terminal, monkeypatch, words):
    monkeypatch.setenv("NO_COLOR", "1")
    said = on_a_terminal(*words)
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]", said)
    for text in ("title", "heading", "cell", "line"):
        assert f"{text} {SHOWN}" in said


def test_headings_are_bold_on_a_terminal_alone(on_a_terminal, monkeypatch, capsys):
    said = on_a_terminal("-q")
    sequences = set(re.findall("\x1b[^m]*m", said))
    assert sequences == {"\x1b[1m", "\x1b[3m", "\x1b[0m"}  # bold, italic, and their end (ECMA-48, SGR)
    assert re.search(r"\x1b\[1mheading [^\x1b]+\x1b\[0m", said)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = on_a_terminal("-q")
    assert re.sub("\x1b[^m]*m", "", said) == plain
    assert main(["doctor", "-q"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_traceback_in_a_log_keeps_its_lines(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logging(0)
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.exception("the traceback:")
    assert stream.getvalue().count("\n") > 3
    assert SHOWN in stream.getvalue()
    logging.getLogger("toolchain").handlers.clear()


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1), (0, 1, 2)])
def test_no_socket_gets_the_number_of_a_closed_standard_file(closed, tmp_path):
    code = f"""
import os, socket, sys
from toolchain.cli.output import open_standard_files
open_standard_files()
print("into /dev/null")
with socket.socket() as made, open({str(tmp_path / "found")!r}, "w") as found:
    found.write(" ".join([*(os.readlink(f"/proc/self/fd/{{n}}") for n in {closed}), str(made.fileno() > 2)]))
"""
    redirected = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, code]
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
    assert (tmp_path / "found").read_text() == " ".join(["/dev/null"] * len(closed) + ["True"])
