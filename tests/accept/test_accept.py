"""Acceptance on the double of TensorRT: its checks, a check that fails, and the report."""

import json
import os
import subprocess

import pytest

from tests.forked.start import python

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


def test_a_failed_check_is_exit_3_after_the_others(ten):
    folder, done = ten
    assert done.returncode == 3
    assert "1 checks failed: CUDA graphs" in done.stderr.splitlines()[-1]
    record = json.loads((folder / "report/accept.json").read_text())
    assert [check["name"] for check in record["checks"]].index("CUDA graphs") < len(record["checks"]) - 1
    assert len(record["results"]) == 10


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
    assert "TensorRT: not installed" in done.stderr
    assert list(tmp_path.iterdir()) == []
