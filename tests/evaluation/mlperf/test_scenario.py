"""LoadGen gets the right settings, and `eval --scenario` keeps block and logs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from toolchain.checkpoint.tokenize import Tokens
from toolchain.cli import main
from toolchain.errors import UsageError
from toolchain.evaluation.mlperf.scenario import loadgen_settings, run_scenario
from toolchain.evaluation.mlperf.text import describe
from toolchain.recipe import Recipe
from toolchain.report.html import html
from toolchain.report.inputs import find_material
from toolchain.report.markdown import markdown

SPEED = {"latency_ms": {"p50": 0.05}, "runtime_throughput_per_s": 1000.0, "tokens": {"batch_slots": 64}}


def encode(texts):
    ids = [[1] * len(text[0].split()) for text in texts]
    return Tokens({"input_ids": ids, "attention_mask": ids}, {"input_ids": 0, "attention_mask": 0})


def infer(batch):
    return np.zeros((len(batch["input_ids"]), 2), np.float32)


def recipe(**changes):
    return Recipe.make(changes)


def test_settings_follow_the_options_and_the_measured_speed():
    single = recipe(scenario="single-stream", min_duration=2.5)
    assert loadgen_settings(single, SPEED, rows=9) == {
        "min_duration_ms": 2500,
        "single_stream_expected_latency_ns": 50_000,
    }
    server = recipe(scenario="server", target_qps=30, target_latency_ms=7.5)
    assert loadgen_settings(server, SPEED, rows=9) == {"server_target_qps": 30, "server_target_latency_ns": 7_500_000}


@pytest.mark.parametrize(("rows", "least"), [(9, 9), (100_000, 24_576)])
def test_offline_has_enough_samples_for_the_rules_and_the_duration(rows, least):
    settings = loadgen_settings(recipe(scenario="offline"), SPEED, rows=rows)
    assert settings["min_query_count"] == least
    assert settings["offline_expected_qps"] > 1000
    asked = loadgen_settings(recipe(scenario="offline", target_qps=7), SPEED, rows=rows)
    assert asked["offline_expected_qps"] == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": "server"}, "Give --target-qps R"),
        ({"scenario": "multi-stream"}, "--scenario multi-stream: unknown"),
        ({"min_duration": 5.0}, "--min-duration 5: it can only be used with --scenario"),
        ({"scenario": "single-stream", "target_qps": 5.0}, "it can only be used with --scenario offline or server"),
        ({"scenario": "offline", "target_latency_ms": 5.0}, "it can only be used with --scenario server"),
        ({"scenario": "offline", "min_duration": 0.5}, "--min-duration 0.5: too small"),
        ({"scenario": "server", "target_qps": float("inf")}, "--target-qps inf: too small or not a number"),
    ],
)
def test_contradicting_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Recipe.make(options)


def test_a_shortened_run_is_marked():
    pytest.importorskip("mlperf_loadgen")
    texts = [("one two",), ("three",)]
    asked = recipe(scenario="single-stream", min_duration=1)
    found = run_scenario(asked, infer, encode, texts, SPEED, tell=lambda line: None).block
    assert (found["settings"]["shortened"], found["settings"]["rules_min_duration_s"]) == (True, 600)
    assert found["from"] == "text"
    assert any("ran for at least 1 s" in line for line in describe(found))


@pytest.fixture(scope="module")
def bundle(demo_bundle, tmp_path_factory):
    pytest.importorskip("mlperf_loadgen")
    return shutil.copytree(demo_bundle, tmp_path_factory.mktemp("mlperf") / "bundle")


def test_the_command_saves_result_and_logs(bundle, capsys):
    options = ["--scenario", "single-stream", "--min-duration", "1", "--limit", "50"]
    assert main(["eval", str(bundle), *options, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    found = result["mlperf"]
    assert result["metrics"]["accuracy"] > 0.7
    assert found["samples"] == found["batches"] > 1
    assert found["settings"]["rows"] == 50
    assert "MLPerf Results Summary" in (bundle / "results" / found["summary_file"]).read_text()
    assert (bundle / "results" / found["detail_file"]).exists()


@pytest.mark.slow
def test_a_report_shows_all_scenarios(bundle, capsys):
    for options in (["offline"], ["server", "--target-qps", "100"]):
        assert main(["eval", str(bundle), "--min-duration", "1", "--limit", "50", "--scenario", *options]) == 0
        shown = capsys.readouterr().out
        assert f"MLPerf {options[0]}: LoadGen says" in shown
    assert main(["eval", str(bundle), "--limit", "50", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mlperf"] is None
    material = find_material([Path(bundle)])
    page = html(material)
    for scenario in ("offline", "server"):
        assert f"MLPerf {scenario}: LoadGen says" in page
        assert f"ort fp32.cpu {scenario}" in page
        assert f"MLPerf {scenario}: LoadGen says" in markdown(material.results)


def test_without_loadgen_the_command_ends_before_it_evaluates(bundle, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["eval", str(bundle), "--scenario", "offline"]) == 4
    errors = capsys.readouterr().err
    assert "pip install 'encoder-toolchain[mlperf]'" in errors
    assert "running" not in errors
