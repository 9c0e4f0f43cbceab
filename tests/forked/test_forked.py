"""A forked process does what `python` does: streams, exit codes, signals, arguments, folder and environment."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked.server import EXECUTABLE, OPSET
from toolchain.checkpoint import export

SEEN = "import os, sys; print(sys.argv, os.getcwd(), os.environ['MARK'], sys.stdin.read(), file=sys.{})"
THREADS = """
import threadpoolctl, torch
print(torch.get_num_threads(), {pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
"""
AT_EXIT = """
import atexit, threading, time
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
print("main")
"""


def both(python: list[str], tmp_path: Path, *arguments: str) -> list[tuple[int, str, str]]:
    """Return exit code, standard output and errors of real and of forked Python."""
    found = []
    for start in ([sys.executable], python):
        environment = os.environ | {"MARK": "here", "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [*start, *arguments], cwd=tmp_path, env=environment, input="typed", capture_output=True, text=True
        )
        found.append((done.returncode, done.stdout, done.stderr.rstrip("\n").rpartition("\n")[2]))
    return found


@pytest.mark.parametrize(
    "code",
    [
        SEEN.format("stdout"),
        SEEN.format("stderr"),
        "import sys; sys.exit(7)",
        "import sys; sys.exit('words')",
        "import sys; sys.exit(None)",
        "raise ValueError('of the code')",
        "raise KeyboardInterrupt",
        "import os; os.kill(os.getpid(), 9)",
        "import os; os.kill(os.getpid(), 15)",
        "import os; os._exit(3)",
        AT_EXIT,
        "import sys; print(__name__, sys.modules['__main__'].__dict__ is globals())",
        "import sys; print([name for name in sys.modules if name.split('.')[0] in ('toolchain', 'tests')])",
        "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'print(5)'], capture_output=True).stdout)",
    ],
)
def test_code_does_what_it_does_in_python(python: list[str], tmp_path: Path, code: str) -> None:
    real, forked = both(python, tmp_path, "-c", code, "a", "b c")
    assert forked == real


def test_libraries_have_as_many_threads_as_the_process_has_processors(python: list[str]) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert subprocess.check_output([*python, "-c", THREADS], text=True) == "1 {1}\n"
    finally:
        os.sched_setaffinity(0, before)


def test_modules_and_files_run_as_main(python: list[str], tmp_path: Path) -> None:
    text = "import sys, beside; print(__name__, sys.argv[1:], sys.path[0], beside.__name__)"
    (tmp_path / "script.py").write_text(text)
    (tmp_path / "beside.py").write_text("")
    for arguments in (["-m", "script", "x"], [str(tmp_path / "script.py"), "y"]):
        real, forked = both(python, tmp_path, *arguments)
        assert forked == real


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_reaches_the_child(python: list[str], number: signal.Signals, code: int) -> None:
    waiting = "import time; print('begun', flush=True); time.sleep(60)"
    with subprocess.Popen([*python, "-c", waiting], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        assert process.wait() == code


def test_the_child_of_a_killed_client_is_killed(python: list[str]) -> None:
    waiting = "import time; print('begun', flush=True); time.sleep(600)"
    with subprocess.Popen([*python, "-c", waiting], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        process.kill()
        assert process.stdout.read() == b""  # the pipe ends with the last process that holds it


def test_what_a_child_starts_as_python_can_be_forked_too(python: list[str], commands: Path) -> None:
    loaded = "import sys; print('torch' in sys.modules)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {loaded!r}])"
    for more, expected in (({}, "False\n"), ({EXECUTABLE: str(commands / "python")}, "True\n")):
        done = subprocess.run([*python, "-c", code], env=os.environ | more, capture_output=True, text=True)
        assert done.stdout == expected


def test_the_cached_table_of_operators_is_the_one_that_an_export_takes() -> None:
    assert OPSET == export.OPSET
