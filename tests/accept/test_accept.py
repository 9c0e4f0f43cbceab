"""Acceptance on the double of TensorRT: its checks, a check that fails, and the report."""

import json
import os
import signal
import subprocess

import pytest

from tests.forked.start import python
from toolchain import accept as accept_package
from toolchain.errors import GateError
from toolchain.recipe import Recipe

SITE = "tests/double/site"


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    sizes = {"dim": 64, "hidden_dim": 128, "n_heads": 2, "n_layers": 1}  # heads of 32: what the attention plugin takes
    return tiny.make_checkpoint(tmp_path_factory.mktemp("models") / "heads", "distilbert", **sizes)


def accept(root, folder, *arguments, **chosen):
    names = {f"TRT_DOUBLE_{name.upper()}": value for name, value in chosen.items()}
    path = os.pathsep.join([str(root / SITE), str(root)])
    return subprocess.run(
        [*python(), "-m", "toolchain", "accept", *map(str, arguments), "-o", "report"],
        cwd=folder,
        env=os.environ | names | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def options(checkpoint, sentences):
    given = ("-m", checkpoint, "--task", "custom", "--text-column", "sentence", "--label-column", "label")
    return (*given, "--data", sentences, "--max-length", 32, "--batch-size", "1,4,8", "--limit", 8, "--max-drop", 50)


@pytest.fixture(scope="module")
def ten(root, options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("accept")
    return folder, accept(root, folder, *options, "--json")


def broken(bench):
    raise GateError("logits differ")


def wrong(bench):
    return str(1 // 0)


def killed(bench):
    os.kill(os.getpid(), signal.SIGKILL)


def skipped(bench):
    bench.bundle("int8")


ENDINGS = {
    "doctor": ("pass", "Tesla T4"),
    "broken": ("fail", "logits differ"),
    "wrong": ("fail", "ZeroDivisionError"),
    "killed": ("fail", "SIGKILL before it returned a value"),
    "skipped": ("skipped", "int8 was not built"),
    "integer sums": ("pass", "the largest error is"),
}


@pytest.mark.double
def test_each_ending_of_a_check_is_recorded_and_the_next_check_runs(tmp_path):
    all_checks = accept_package.CHECKS
    accept_package.CHECKS = {name: globals().get(name) or all_checks[name] for name in ENDINGS}
    record = accept_package.accept(Recipe.make({"model": "demo", "task": "demo"}), folder=tmp_path)
    assert {check["name"]: check["outcome"] for check in record["checks"]} == {k: v[0] for k, v in ENDINGS.items()}
    assert all(ENDINGS[check["name"]][1] in check["detail"] for check in record["checks"])
    kept = json.loads((tmp_path / "accept.json").read_text())
    assert kept["checks"] == record["checks"]
    page = (tmp_path / "accept.md").read_text()
    assert page.startswith("# Acceptance: Tesla T4")
    assert all(f"| {name} | {outcome} |" in page for name, (outcome, _) in ENDINGS.items())
    with pytest.raises(GateError, match="3 checks failed: broken, wrong, killed"):
        accept_package.judge(record)


@pytest.mark.slow
def test_every_check_passes_except_those_that_need_a_driver(ten):
    record = json.loads(ten[1].stdout)
    outcomes = {check["name"]: check["outcome"] for check in record["checks"]}
    wrong = {check["name"]: check["detail"] for check in record["checks"] if check["outcome"] == "fail"}
    assert set(wrong) == {"CUDA graphs"}, wrong
    assert "libcuda" in wrong["CUDA graphs"]
    assert outcomes["eval ort-trt fp16"] == "skipped"
    assert outcomes["HTML report"] == "pass"
    assert outcomes["energy counter"] == outcomes["energy int8"] == "skipped"  # there is no driver
    sums, rtx = ("integer sums", "integer sums trt-rtx"), ("build", "verify", "eval")
    assert all(outcomes[name] == "pass" for name in (*sums, *(f"{verb} trt-rtx int8" for verb in rtx)))
    assert all(outcomes[f"build {name}"] == "pass" for name in ("fp32", "fp16", "int8", "int8-plugin-tensorrt"))


@pytest.mark.slow
def test_a_failed_check_is_exit_3_after_the_others(ten):
    folder, done = ten
    assert done.returncode == 3
    assert "1 check failed: CUDA graphs" in done.stderr.splitlines()[-1]
    record = json.loads((folder / "report/accept.json").read_text())
    assert [check["name"] for check in record["checks"]].index("CUDA graphs") < len(record["checks"]) - 1
    assert len(record["results"]) == 10


@pytest.mark.slow
def test_the_report_has_the_machine_every_check_and_the_results(ten):
    page = (ten[0] / "report/accept.md").read_text()
    record = json.loads(ten[1].stdout)
    assert page.startswith("# Acceptance: Tesla T4")
    assert all(f"| {check['name']} | {check['outcome']} |" in page for check in record["checks"])
    assert "trt cuda:0" in page
    assert "<td" in (ten[0] / "report/accept.html").read_text()


@pytest.mark.slow
def test_tensorrt_11_skips_its_missing_paths(root, options, tmp_path):
    done = accept(root, tmp_path, *options, "--json", version="11.4.0.106")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["build int8"]["outcome"] == "pass"
    assert checks["build fp16-plugin"]["outcome"] == "pass"
    for name in ("int8-plugin", "int8-plugin-tensorrt"):
        assert checks[f"build {name}"]["outcome"] == "skipped"
        assert checks[f"eval {name}"]["detail"] == f"{name} was not built"


def test_without_tensorrt_accept_is_exit_4(root, tmp_path):
    path = {"PYTHONPATH": str(root)}
    command = [*python(), "-m", "toolchain", "accept", "-m", "demo", "--task", "demo"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | path, capture_output=True, text=True)
    assert done.returncode == 4
    assert "TensorRT: it is not installed" in done.stderr
    assert list(tmp_path.iterdir()) == []
