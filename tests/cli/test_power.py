"""`toolchain power` as a user runs it: in real time, with real commands and a scripted libnvidia-ml.so.1."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

T4 = "device 0 6 GPU-11111111-aaaa Tesla T4\npower 0 0 50000\n"
SECOND = "device 1 6 GPU-22222222-bbbb Tesla T4\npower 1 0 20000\n"
WAITING = "import time; print('begun', flush=True); time.sleep(60)"


@pytest.fixture
def begin(library, root, tmp_path):
    """Return a function that starts `toolchain power` with options on the machine of a scenario."""

    def start(scenario, *arguments):
        (tmp_path / "scenario").write_text(scenario)
        driver = {"LD_LIBRARY_PATH": str(library.parent), "FAKENVML_SCENARIO": str(tmp_path / "scenario")}
        return subprocess.Popen(
            [sys.executable, "-m", "toolchain", "power", *map(str, arguments)],
            cwd=tmp_path,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | driver | {"PYTHONPATH": str(root)},
        )

    return start


@pytest.mark.parametrize(("scenario", "watts"), [(T4, 50), (T4 + SECOND, 70)])
def test_two_seconds_are_within_the_stated_error(begin, scenario, watts):
    done = begin(scenario, "--json", "--", sys.executable, "-c", "import time; time.sleep(2)")
    record = json.loads(done.communicate()[0])
    assert record["components"]["gpu_board"]["method"] == "nvml_counter"
    assert abs(record["total_j"] - watts * record["seconds"]) <= record["edge_error_j"]
    assert record["relative_edge_error"] <= 0.2 / record["seconds"]


def test_input_output_and_exit_code_are_the_commands(begin):
    process = begin("", sys.executable, "-c", "print(input()[::-1]); raise SystemExit(7)")
    out, errors = process.communicate("abc")
    assert (process.returncode, out) == (7, "cba\n")
    assert "not measured: no GPU is visible" in errors


def test_samples_and_plot_are_written(begin, tmp_path):
    for suffix in ("csv", "svg"):
        begin(T4, "-o", f"kept/power.{suffix}", "sleep", "1").communicate()
    rows = pd.read_csv(tmp_path / "kept/power.csv")
    assert list(rows) == ["time_s", "gpu_board_w", "gpu_board_j"]
    assert set(rows.gpu_board_w) == {50.0}
    assert rows.gpu_board_j.iloc[-1] == pytest.approx(50 * rows.time_s.iloc[-1], rel=0.11)
    assert "sleep 1" in "".join(ET.parse(tmp_path / "kept/power.svg").getroot().itertext())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_and_the_record_is_printed(begin, number, code):
    process = begin(f"{T4}update_ms 0 5\n", sys.executable, "-c", WAITING)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    assert "total " in process.communicate()[1]
    assert process.returncode == code


def test_ctrl_c_ends_watching_with_a_record(begin):
    process = begin(T4, "--json")
    assert process.stderr.readline().split()[:3] == ["1", "s", "gpu_board"]
    process.send_signal(signal.SIGINT)
    record = json.loads(process.communicate()[0])
    assert process.returncode == 0
    assert record["total_j"] == pytest.approx(50 * record["seconds"], rel=0.11)


def test_under_json_stdout_is_the_record_alone(begin):
    process = begin("", "--json", "--", "sh", "-c", "echo of the command; exit 3", "--", "-v", "--json")
    out, errors = process.communicate()
    record = json.loads(out)
    assert errors == "of the command\n"
    assert record["command"] == ["sh", "-c", "echo of the command; exit 3", "--", "-v", "--json"]
    assert (process.returncode, record["exit_code"], record["total_j"]) == (3, 3, None)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--require-energy", "--", "touch", "made"],
            4,
            "--require-energy: this machine cannot measure any energy (gpu_board: no",
        ),
        ([], 4, "power: this machine cannot measure any energy"),
        (["no-such-thing"], 1, "no-such-thing: this command does not exist."),
        (["-o", "power.txt", "touch", "made"], 2, "power.txt: its suffix does not name a format."),
        (["--seconds", "nan"], 2, "--seconds nan: the number is not above 0."),
        (["--seconds", "0"], 2, "--seconds 0: the number is not above 0."),
        (["--seconds", "3", "touch", "made"], 2, "--seconds: this option is for measuring without a command"),
    ],
)
def test_wrong_arguments_are_errors_before_anything_runs(begin, tmp_path, arguments, code, message):
    process = begin("", *arguments)
    assert process.communicate()[1].startswith(f"error: {message}")
    assert process.returncode == code
    assert not (tmp_path / "made").exists()
