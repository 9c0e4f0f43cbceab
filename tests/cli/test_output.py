"""What a command prints is text, and it prints into its own files alone."""

import io
import logging
import os
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


def test_a_table_on_a_terminal_has_no_escape_sequences_that_would_be_printed(monkeypatch, capsys):
    def run(args):
        table = titled("a title")
        table.add_column("heading")
        table.add_row("cell")
        put(table)

    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(type(COMMANDS["doctor"]), "load_run", lambda self: run)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "a title" in said
    assert "\x1b" not in said
    assert "\\u001b" not in said


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
