"""Cells of a cheap stand-in: failures, interruptions, and what a second call does."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.sweep.conftest import GRID, STANDIN
from toolchain.cli import main
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.recipe.options import toml_value
from toolchain.sweep import Asked, sweep
from toolchain.sweep.attempt import sets
from toolchain.sweep.runner import machine_lock, run

FOLDER = Path("eval/results/study")


def runs() -> list[list]:
    log = Path("log")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def states(record) -> Counter:
    return Counter(cell["state"] for cell in record["cells"])


def test_every_cell_runs_once_and_a_second_call_runs_and_writes_nothing(study):
    first = sweep(study(), Asked(), program=STANDIN)
    assert states(first) == {"done": 8}
    assert len(runs()) == 8
    assert len(list((FOLDER / "bundles").iterdir())) == 2  # four cells share one
    assert first["forecast"] == {"cells": 0, "builds": 0, "seconds": 0.0}
    before = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*")}
    assert sweep(study(), Asked(), program=("false",)) == first
    assert {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*")} == before


@pytest.mark.parametrize("broken", ["", '{"schema": 1', "[]", "{}", '{"metrics": {"accuracy": "high"}}'])
def test_a_cell_whose_result_is_broken_runs_again(study, broken):
    first = sweep(study(), Asked(), program=STANDIN)
    (FOLDER / first["cells"][3]["result"]).write_text(broken)
    assert states(sweep(study(), Asked(dry_run=True))) == {"done": 7, "waiting": 1}
    assert states(sweep(study(), Asked(), program=STANDIN)) == {"done": 8}
    assert len(runs()) == 9


def test_a_cell_whose_run_is_broken_runs_again(study):
    first = sweep(study(), Asked(), program=STANDIN)
    (FOLDER / first["cells"][3]["result"]).with_name("run.json").write_text("{")
    assert states(sweep(study(), Asked(), program=STANDIN)) == {"done": 8}
    assert len(runs()) == 9


def test_a_new_value_of_an_axis_runs_only_its_own_cells(study):
    first = sweep(study(), Asked(), program=STANDIN)
    more = sweep(study(GRID.replace("[10, 20]", "[10, 20, 30]")), Asked(), program=STANDIN)
    assert len(runs()) == 12
    assert {one["name"] for one in first["cells"]} < {one["name"] for one in more["cells"]}


def test_a_changed_file_of_the_model_makes_other_cells(study):
    Path("model").mkdir()
    (Path("model") / "weights").write_text("1")
    file = study(GRID.replace('"demo"', '"./model"', 1))
    keys = {one["key"] for one in sweep(file, Asked(), program=STANDIN)["cells"]}
    (Path("model") / "weights").write_text("22")
    assert keys.isdisjoint(one["key"] for one in sweep(file, Asked(dry_run=True), program=STANDIN)["cells"])


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("segfault", -signal.SIGSEGV, "killed by SIGSEGV"),
        ("kill", -signal.SIGKILL, "killed by SIGKILL (often the system, because memory ran out)"),
        ("exit", 1, "model.onnx: broken. Build it again."),
        ("nothing", 1, "eval: the command printed no result"),
    ],
)
def test_a_cell_that_fails_is_a_record_and_the_others_go_on(study, monkeypatch, how, code, reason):
    monkeypatch.setenv("STANDIN_FAULT", json.dumps({'"openvino"': how}))
    record = sweep(study(), Asked(), program=STANDIN)
    assert states(record) == {"done": 4, "failed": 4}
    failed = next(one for one in record["cells"] if one["state"] == "failed")
    assert (failed["reason"], failed["run"]["exit_code"], failed["run"]["attempts"]) == (reason, code, 1)
    monkeypatch.delenv("STANDIN_FAULT")
    again = sweep(study(), Asked(), program=STANDIN)
    assert states(again) == {"done": 8}
    assert max(one["run"]["attempts"] for one in again["cells"]) == 2


def test_a_build_may_take_its_graph_from_the_bundles_before_it(study, monkeypatch):
    monkeypatch.setenv("STANDIN_FAULT", '{"--reuse": "exit"}')
    assert states(sweep(study(), Asked(), program=STANDIN)) == {"done": 4, "failed": 4}  # the first build lacks it


def test_a_build_that_fails_is_the_reason_of_all_its_cells(study, monkeypatch):
    monkeypatch.setenv("STANDIN_FAULT", '{"bundles/int8": "exit"}')
    record = sweep(study(), Asked(), program=STANDIN)
    assert {one["reason"] for one in record["cells"] if one["state"] == "failed"} == {
        "build: model.onnx: broken. Build it again."
    }
    assert states(record) == {"done": 4, "failed": 4}


def test_a_bundle_that_a_failed_build_left_is_built_again(study, monkeypatch):
    monkeypatch.setenv("STANDIN_FAULT", '{"bundles/int8": "exit"}')
    sweep(study(), Asked(), program=STANDIN)
    record = sweep(study(), Asked(dry_run=True), program=STANDIN)
    for bundle in {FOLDER / one["bundle"] for one in record["cells"] if one["state"] == "failed"}:
        bundle.mkdir()
        (bundle / "bundle.json").write_text("{}")
    monkeypatch.setenv("STANDIN_FAULT", '{"build": "segfault"}')
    again = sweep(study(), Asked(), program=STANDIN)
    # The reason is that of this attempt, although the log of the first has an error.
    assert {one["reason"] for one in again["cells"] if one["state"] == "failed"} == {"build: killed by SIGSEGV"}
    assert states(again) == {"done": 4, "failed": 4}


def test_the_reason_of_a_failure_is_of_its_own_attempt(tmp_path):
    file = tmp_path / "log.txt"
    file.write_text("error: of another attempt\n")
    ended = run(["-c", "import sys; sys.exit('a traceback')"], file, program=(sys.executable,))
    assert ended.reason == "a traceback"


def test_energy_as_an_objective_makes_no_cell_twice(study, monkeypatch):
    monkeypatch.setattr("toolchain.sweep.here.unmeasurable", lambda objective, device: None)
    text = GRID.replace('["latency"]', '["energy"]') + "energy = [true, false]\n"
    cells = sweep(study(text), Asked(dry_run=True), program=STANDIN)["cells"]
    assert len(cells) == len({one["key"] for one in cells}) == 8


def test_a_model_in_the_current_folder_has_the_same_key_after_its_cells_have_run(study, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    asked = Asked(output=tmp_path / "model/swept")
    file = study(GRID.replace('"demo"', '"./model"', 1))
    assert sweep(file, asked, program=STANDIN) == sweep(file, asked, program=("false",))
    assert len(runs()) == 8


def test_a_text_reaches_the_commands_as_it_is():
    (word,) = [word for word in sets({"model": "a é 😀"}) if word != "--set"]
    assert toml_value(word.partition("=")[2]) == "a é 😀"


def test_only_runs_the_cells_that_are_asked_for_and_the_forecast_is_for_the_rest(study):
    record = sweep(study(), Asked(only="int8*"), program=STANDIN)
    assert states(record) == {"done": 4, "waiting": 4}
    assert record["forecast"]["cells"] == 4
    assert record["forecast"]["builds"] == 1
    seconds = [one["run"]["seconds"] for one in record["cells"] if one["run"]]
    assert record["forecast"]["seconds"] >= 4 * min(seconds)
    with pytest.raises(UsageError, match="no cell has such a name"):
        sweep(study(), Asked(only="int4*"), program=STANDIN)


def test_a_dry_run_writes_nothing_and_says_what_is_impossible(study):
    file = study(GRID.replace('"openvino"', '"trt"'))
    record = sweep(file, Asked(dry_run=True), program=STANDIN)
    assert states(record) == {"waiting": 4, "impossible": 4}
    assert "TensorRT" in next(one["reason"] for one in record["cells"] if one["state"] == "impossible")
    assert not FOLDER.exists()
    assert record["forecast"]["seconds"] is None


def test_a_folder_of_another_sweep_or_of_nobody_is_refused(study, tmp_path):
    sweep(study(), Asked(), program=STANDIN)
    with pytest.raises(InputError, match="the results of another sweep, study"):
        sweep(study(name="other"), Asked(output=FOLDER), program=STANDIN)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe/sweep.txt")
    with pytest.raises(InputError, match=r"sweep\.txt: this is not a regular file"):
        sweep(study(), Asked(output=tmp_path / "pipe"), program=STANDIN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("")
    with pytest.raises(InputError, match="the folder has files that are not from a sweep"):
        sweep(study(), Asked(output=tmp_path / "mine"), program=STANDIN)
    for dry_run in (True, False):
        with pytest.raises(InputError, match=r"mine/file is a file\. Choose"):
            sweep(study(), Asked(output=tmp_path / "mine/file/x", dry_run=dry_run), program=STANDIN)


def test_what_no_machine_or_no_cell_can_give_is_one_line(study):
    with pytest.raises(UsageError, match=r"empty\.toml: the file has no key"):
        sweep(study("", "empty"), Asked(), program=STANDIN)
    with pytest.raises(MachineError, match=r"no cell can run on this machine. --backend trt|TensorRT"):
        sweep(study(GRID.replace('["ort", "openvino"]', '"trt"')), Asked(), program=STANDIN)
    with pytest.raises(InputError, match=r"no cell can run on this machine. model ./absent: there is no such"):
        sweep(study(GRID.replace('"demo"', '"./absent"', 1)), Asked(), program=STANDIN)
    with pytest.raises(UsageError, match=r"no cell can run on this machine. --task nope"):
        sweep(study(GRID.replace('task = "demo"', 'task = "nope"')), Asked(), program=STANDIN)


def test_energy_that_cannot_be_measured_is_refused_before_any_cell_runs(study, monkeypatch):
    monkeypatch.setattr("toolchain.sweep.here.unmeasurable", lambda objective, device: f"{objective}: no counter")
    with pytest.raises(MachineError, match="objectives: energy: no counter"):
        sweep(study(GRID.replace('["latency"]', '["energy"]')), Asked(), program=STANDIN)
    assert runs() == []


def test_the_commands_of_cells_wait_for_the_lock_of_the_machine(study):
    """A command that another sweep left behind has the lock: no cell runs until it has ended."""
    with machine_lock() as lock:
        holder = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    waiting = start(study())
    assert [waiting.stderr.readline()[:13] for _ in range(2)][1] == "another sweep"
    assert runs() == []
    holder.communicate(b"\n")
    waiting.communicate()
    assert waiting.returncode == 0
    assert len(runs()) == 8


CODE = f"""
import logging, sys
from pathlib import Path
from toolchain.sweep import Asked, sweep
from toolchain.sweep.attempt import sets
logging.basicConfig(format="%(message)s", level="INFO")
sweep(Path(sys.argv[1]), Asked(), program={STANDIN!r})
"""


def start(file: Path, python: Sequence[str] = (sys.executable,)) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    return subprocess.Popen([*python, "-c", CODE, str(file)], env=environment, stderr=subprocess.PIPE, text=True)


def results() -> set[Path]:
    return set(FOLDER.glob("cells/*/result.json"))


@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.stress)])
def test_kills_at_random_instants_lose_and_repeat_nothing(study, python, kills):
    """Each kill comes a random time after a random cell has begun."""
    chance = random.Random(kills)
    file = study(GRID.replace("[10, 20]", str(list(range(1, kills + 1)))))
    finished: dict[Path, int] = {}
    for _ in range(kills):
        process = start(file, python)
        for _ in range(chance.randint(1, 3)):
            process.stderr.readline()  # the name of a cell that begins
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.random() * 0.06)
        process.kill()
        process.communicate()
        finished |= {path: path.stat().st_mtime_ns for path in results() - finished.keys()}
        assert all(json.loads(path.read_text()) for path in results())
    record = sweep(file, Asked(), program=STANDIN)
    assert states(record) == {"done": 4 * kills}
    assert len(results()) == 4 * kills
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # none of them ran again
    assert [*FOLDER.rglob(".result.json.*"), *FOLDER.rglob(".run.json.*")] == []


def test_the_command_line_prints_the_cells_and_ends_with_1_if_one_failed(study, monkeypatch, capsys):
    monkeypatch.setattr("toolchain.sweep.sweep.__kwdefaults__", {"program": STANDIN, "tell": print})
    monkeypatch.setenv("STANDIN_FAULT", json.dumps({'"openvino"': "segfault"}))
    assert main(["sweep", str(study())]) == 1
    shown = capsys.readouterr().out
    assert "8 cells, 4 done, 4 failed" in shown
    assert "killed by SIGSEGV" in shown
    assert "accuracy against latency" in shown
    assert "next: toolchain report eval/results/study" in shown
