"""The command line: stdout and stderr, exit codes, and errors in one line."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked.start import python
from toolchain.cli import COMMANDS, _everywhere_flags_first, _parse, main, parser
from toolchain.cli.examples import EXAMPLES
from toolchain.cli.ship import KINDS

ROOT = Path(__file__).parents[2]
SCRIPT = [str(Path(sys.executable).with_name("toolchain"))]


def run(*arguments, cwd=None, start=()):
    """Run the command in a process of its own, without a hub; `start` is the console script instead."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [*(start or [*python(), "-m", "toolchain"]), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def built(tiny_distilbert, sentences, tmp_path_factory, begun):
    home = tmp_path_factory.mktemp("cli")
    begun("fp32", home / "engines/build/distilbert-sst2-int8")
    options = ["--task", "sst2", "--data", sentences, "--calib-samples", "20"]
    done = run("build", "-m", tiny_distilbert, *options, "--precision", "int8", cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def test_build_then_eval_take_no_more_than_the_two_commands(built):
    done = run("eval", "--backend", "ort", "--json", cwd=built)
    result = json.loads(done.stdout)
    assert (done.returncode, result["n"], result["precision"]) == (0, 40, "int8")
    assert "running 40 rows" in done.stderr


def test_json_is_the_whole_of_stdout(built, tiny_distilbert, sentences):
    done = run(
        "build",
        "-m",
        tiny_distilbert,
        "--data",
        sentences,
        "--precision",
        "int8",
        "--calib-samples",
        "20",
        "--json",
        cwd=built,
    )
    assert json.loads(done.stdout)["up_to_date"]


def test_a_checkpoints_folder_is_what_is_built_and_is_no_bundle(
    tiny_distilbert, sentences, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = [str(tiny_distilbert), "--data", str(sentences), "--dry-run", "--json"]
    assert main(["build", *given]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["bundle"], said["precision"]) == ("engines/build/distilbert-sst2-int8", "int8")
    assert main(["build", *given, "-m", "demo"]) == 2
    assert "is not a bundle, and --model demo was given too" in capsys.readouterr().err
    assert main(["eval", str(tiny_distilbert)]) == 1
    assert "this is a checkpoint, not a bundle. Build a bundle from it: toolchain build" in capsys.readouterr().err


def test_int8_by_default_needs_rows_and_says_so_before_the_export(tiny_distilbert, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["build", "-m", str(tiny_distilbert)]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "--data DIR, or choose --precision fp16, which needs none" in line
    assert main(["build", "-m", str(tiny_distilbert), "--precision", "int8"]) == 4
    assert "--precision fp16" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_second_build_prints_that_nothing_was_done(built, tiny_distilbert, sentences):
    done = run(
        "build", "-m", tiny_distilbert, "--data", sentences, "--precision", "int8", "--calib-samples", "20", cwd=built
    )
    assert "up to date: nothing done" in done.stdout


def test_trt_is_exit_4_after_the_rest_was_built(tmp_path, tiny_distilbert, begun):
    begun("fp32", tmp_path / "b")
    done = run("build", "-m", tiny_distilbert, "--precision", "fp16", "--backend", "trt", "-o", tmp_path / "b")
    assert done.returncode == 4
    assert "TensorRT: it is not installed" in done.stderr
    assert (tmp_path / "b/model.fp16.onnx").exists()


def test_quiet_hides_progress_and_verbose_shows_tracebacks(built):
    assert run("eval", "--limit", "3", "-q", cwd=built).stderr == ""
    assert "Traceback" in run("eval", "--task", "none", "-v", cwd=built).stderr


def test_report_puts_results_side_by_side(built):
    run("eval", "--backend", "torch", "-q", cwd=built)
    done = run("report", *(built / "engines/build").iterdir(), cwd=built)
    assert "| ort cpu | int8.cpu |" in done.stdout
    assert "| torch cpu | fp32 |" in done.stdout


def broken_folder(tmp_path, checkpoint, change):
    shutil.copytree(checkpoint, tmp_path / "m")
    change(tmp_path / "m")
    return ["export", "-m", tmp_path / "m", "-o", tmp_path / "b"]


def cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def pickle_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (pickle_weights, "pickled weights"),
        (cut_weights, "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
    ],
)
def test_a_broken_checkpoint_is_one_line_and_exit_1(tmp_path, tiny_distilbert, change, message):
    done = run(*broken_folder(tmp_path, tiny_distilbert, change))
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["eval", "--limit", "0"], 2, "--limit 0: too small"),
        (["eval", "--task", "sst3"], 2, "--task sst3: the task is unknown"),
        (["eval", "--backend", "trt"], 4, "TensorRT: it is not installed"),
        (["eval", "--device", "tpu"], 2, "--device tpu: unknown"),
        (["eval", "--device", "cuda"], 4, "cannot use a GPU here"),
        (["eval", "nowhere"], 1, "not a bundle"),
        (["eval", "--set", "precison=int8"], 2, "unknown key 'precison'"),
        (["build", "-m", "./nowhere"], 2, "no such folder"),
        (["build", "-m", "distilbert/nothing"], 4, "the hub cannot be reached"),
        (["build", "--task", "custom", "-m", "demo"], 2, "Give --text-column A[,B] and --label-column L"),
        (["build", "nothing.toml"], 1, "No such file"),
        (["report", "nothing.json"], 1, "No such file"),
    ],
)
def test_wrong_use_is_one_line_with_its_exit_code(built, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(built)
    assert main(arguments) == code
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["evaluate"], ["eval", "--backend", "tpu"], ["eval", "--limit", "x"]])
def test_what_the_parser_refuses_is_exit_2(arguments):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["bulid"], "bulid: this is not a command. Did you mean build?"),
        (["build", "--presicion", "int8"], "--presicion: build has no such argument. Did you mean --precision?"),
        (["build", "--presicion=int8"], "Did you mean --precision?"),
        (["ship", "triton", "b", "--max-bach", "4"], "Did you mean --max-batch?"),
        (["build", "--precision", "int88"], "Did you mean int8?"),
        (["ship", "tritn", "b"], "Did you mean triton?"),
        (["report", "r.json", "--format", "htm"], "Did you mean html?"),
        (["doctor", "--zzzz"], "--zzzz: doctor has no such argument. See: toolchain doctor --help"),
    ],
)
def test_what_may_have_been_meant_is_said(arguments, meant, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        (["build", "--data", ""], "--data"),
        (["build", "--reuse="], "--reuse"),
        (["eval", ""], "RECIPE|BUNDLE"),
        (["report", "r.json", "-o", ""], "-o/--output"),
        (["ship", "triton", ""], "BUNDLE"),
        (["report", "r.json", "--format", "csv", ""], "results"),
    ],
)
def test_an_empty_value_is_refused(arguments, argument, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert f"argument {argument}: the value is empty" in capsys.readouterr().err


def test_values_that_mean_something_may_be_empty():
    assert parser("build").parse_args(["build", "--text-join", "", "--keep", ""]).keep == ""
    assert parser("predict").parse_args(["predict", "b", "", "x"]).texts == ["", "x"]
    assert parser("power").parse_args(["power", "--", "sh", ""]).command[-2:] == ["sh", ""]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["predict", "b", "--device", "cpu", "one", "two"], "texts"),
        (["predict", "b", "one", "--device", "cpu", "two"], "texts"),
        (["compare", "one", "--max-drop", "1", "two"], "results"),
        (["report", "one", "-o", "x.html", "two"], "results"),
    ],
)
def test_options_may_stand_between_the_items_of_a_list(words, name):
    assert getattr(_parse(parser(), words[0], words), name) == ["one", "two"]


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: toolchain ")


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "build", "-m", "demo", "-q", "--dry-run"],
        ["-q", "build", "-m", "demo", "--json", "--dry-run"],
        ["build", "--json", "-m", "demo", "--dry-run", "-q"],
    ],
)
def test_json_verbose_and_quiet_may_stand_anywhere(words, capsys):
    assert main(words) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["would_do"]
    assert found.err == ""


def test_flags_of_a_measured_command_are_its_own():
    words = ["-v", "power", "--", "ls", "--json"]
    assert _everywhere_flags_first("power", words) == ["power", "-v", "--", "ls", "--json"]
    assert _everywhere_flags_first("predict", ["predict", "b", "--", "-v"]) == ["predict", "b", "--", "-v"]


def test_the_whole_parser_knows_the_arguments_of_every_command():
    assert parser().parse_args(["tune", "b", "--budget", "7"]).budget == 7
    assert parser().parse_args(["doctor", "--json"]).json
    assert parser("doctor").parse_args(["doctor", "--json"]).json


@pytest.mark.parametrize(
    "command", ["build", *(pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name != "build")]
)
def test_every_command_is_one_of_the_console_scripts(command):
    done = run(command, "--help", start=SCRIPT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: toolchain {command} ")


@pytest.mark.slow
def test_the_console_script_builds_and_evaluates(built, tiny_distilbert, sentences):
    options = ["--data", sentences, "--precision", "int8", "--calib-samples", "20", "--json"]
    assert json.loads(run("build", "-m", tiny_distilbert, *options, cwd=built, start=SCRIPT).stdout)["up_to_date"]
    assert json.loads(run("eval", "--limit", "3", "--json", cwd=built, start=SCRIPT).stdout)["n"] == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_page_of_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 80
    shown = " ".join(page.split())
    assert COMMANDS[command].text[1:] in shown
    assert "--json" in shown
    assert callable(COMMANDS[command].load_run())


def test_the_other_help_pages_have_80_columns_and_a_usage_line_names_what_must_be_given(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], *(["ship", kind] for kind in KINDS)):
        with pytest.raises(SystemExit, match="0"):
            main([*words, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    with pytest.raises(SystemExit, match="0"):
        main(["estimate", "--help"])
    assert capsys.readouterr().out.startswith("usage: toolchain estimate [options] --gpu NAME [BUNDLE]\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_three_examples_that_its_parser_takes(command):
    for line in EXAMPLES[command]:
        words = shlex.split(re.split(" [<>] ", line)[0])
        assert words[:2] == ["toolchain", command]
        assert parser(command).parse_args(words[1:]).typed == command


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--set", "precision=int88"], "Did you mean int8?"),
        (["--set", "precison=int8"], "Did you mean precision?"),
        (["--calib-method", "entropi"], "Did you mean entropy?"),
    ],
)
def test_what_may_have_been_meant_is_said_of_a_recipe_too(words, meant, capsys):
    assert main(["build", "-m", "demo", "--dry-run", *words]) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "titles"),
    [
        ("serve", ["addresses", "where it runs", "model and data", "limits", "trust", "output"]),
        ("power", ["where it runs", "energy", "output"]),
        ("compare", ["gate", "energy", "model and data", "where it runs", "trust", "output"]),
    ],
)
def test_other_commands_have_groups_too(command, titles):
    assert [group.title for group in parser(command)._subparsers._group_actions[0].choices[command]._action_groups][
        2:
    ] == titles


def test_options_stand_in_groups(capsys):
    with pytest.raises(SystemExit):
        main(["build", "--help"])
    shown = capsys.readouterr().out
    titles = ["options:", "model and data:", "precision and quantization:", "TensorRT engine:", "gate:", "examples:"]
    assert all(f"\n{title}\n" in shown for title in titles)
    assert "--max-drop POINTS" in shown[shown.index("\ngate:\n") :]


def test_doctor_finds_the_installed_libraries(capsys):
    assert main(["doctor", "--json"]) == 0
    states = {entry["name"]: entry["state"] for entry in json.loads(capsys.readouterr().out)["findings"]}
    assert states["ONNX Runtime"] == "ok"
    assert states["torch"] == "ok"


def test_a_flag_wins_over_set_and_set_over_the_recipe(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text('model = "demo"\ntask = "demo"\nprecision = "fp32"\noutput = "from-file"\n')
    assert main(["build", "r.toml", "--set", "output=from-set", "--precision", "int8", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["bundle"], said["precision"]) == ("from-set", "int8")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KB: too small for a graph of even the tiny model."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("command", ["shrink --ffn 0.5", "export"])
def test_an_output_below_a_file_names_the_file(tmp_path, capsys, command):
    (tmp_path / "file").touch()
    assert main([*command.split(), "-m", "demo", "--task", "demo", "-o", str(tmp_path / "file/x")]) == 1
    found = f"error: {tmp_path / 'file'}: this is a file, and a folder is needed. Choose another path.\n"
    assert capsys.readouterr().err.endswith(found)


def test_a_full_disk_is_one_line_and_leaves_the_old_bundle(small_disk, tiny, tmp_path):
    model = tiny.make_checkpoint(tmp_path / "m", "distilbert", n_layers=1)
    done = run("export", "-m", model, "-o", small_disk / "b")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in small_disk.iterdir()] == []


def test_calibrate_makes_ranges_and_leaves_the_int8_bundle_alone(built, tiny_distilbert, sentences, begun):
    begun("fp32", built / "engines/build/distilbert-sst2-calibration")
    done = run("calibrate", "-m", tiny_distilbert, "--data", sentences, "--calib-samples", "9", "--json", cwd=built)
    said = json.loads(done.stdout)
    assert said["bundle"].rsplit("-", 1)[1] == "calibration"
    assert (said["skipped"], said["done"]) == (["export"], ["calibrate"])
    assert "calibration.cache" in said["artefacts"]
    assert run("eval", built / "engines/build/distilbert-sst2-int8", "--limit", "3", "-q", cwd=built).returncode == 0


def test_calibrate_of_a_bundle_redoes_the_steps_that_follow(built, tmp_path):
    shutil.copytree(built / "engines/build/distilbert-sst2-int8", tmp_path / "b")
    done = run("calibrate", tmp_path / "b", "--calib-method", "mse", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["done"] == ["calibrate", "quantize"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--max-length", "64"], "was built with 128"), (["-m", "demo"], "demo-demo-int8: not built yet")],
)
def test_an_option_that_the_bundle_fixes_is_refused(built, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(built)
    assert main(["eval", "--backend", "ort", *arguments]) == 2
    assert message in capsys.readouterr().err
