"""Results in MLflow: once each, with figures and parameters; a server that is down is one error."""

import json
import os
import socket

import pytest

from toolchain.errors import MachineError, UsageError
from toolchain.report.tracking import EXPERIMENT, figures, track


def test_figures_are_the_numbers_that_were_measured(result):
    found = dict(figures(result))
    assert (found["metrics.accuracy"], found["latency_ms.p50"], found["throughput_per_s"]) == (0.8812, 1.25, 1234.5)
    assert found["peak_memory_mb.host"] == 256.0
    assert not any(key.startswith("energy") or key == "peak_memory_mb.device" for key in found)


def test_another_place_and_a_missing_package_are_named(result, monkeypatch):
    with pytest.raises(UsageError, match=r"--to tensorboard: unknown\. Give --to mlflow, .* or --to wandb"):
        track([result], "tensorboard")
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    for kind in ("mlflow", "wandb"):
        with pytest.raises(MachineError, match=rf"not installed.*encoder-toolchain\[{kind}\]"):
            track([result], kind)


def test_the_password_of_an_address_is_not_shown(result, monkeypatch):
    to = "mlflow:postgresql://me:sec/ret@host/runs"
    for kind in ("tensorboard", "mlflow"):
        monkeypatch.setattr("toolchain.report.tracking._mlflow", lambda place: ({}.__getitem__, (TypeError,)))
        with pytest.raises(
            (MachineError, UsageError), match=rf"^--to {kind}:postgresql://\*\*\*@host/runs: "
        ) as raised:
            track([result], to.replace("mlflow", kind))
        assert "ret" not in str(raised.value)
    assert track([], to)["to"] == "mlflow:postgresql://***@host/runs"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder that MLflow keeps runs in, and a client of it."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow-skinny")
    return f"file:{tmp_path}/runs", mlflow.MlflowClient(f"file:{tmp_path}/runs")


@pytest.mark.filterwarnings("ignore")  # of mlflow: its file store is in maintenance
def test_a_result_is_written_once_with_its_figures_and_itself(place, result, tmp_path):
    uri, client = place
    first = track([result], f"mlflow:{uri}")["runs"][0]
    again = track([result, result | {"seed": 1}], f"mlflow:{uri}")["runs"]
    assert [one["state"] for one in (first, *again)] == ["written", "there", "written"]
    assert again[0]["run"] == first["run"]
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert len(runs) == 2
    run = client.get_run(first["run"])
    assert run.data.metrics == dict(figures(result))
    assert (run.data.params["backend"], run.data.params["variant"]) == ("ort", "int8.cpu")
    kept = client.download_artifacts(first["run"], "result.json", str(tmp_path))
    with open(kept) as file:
        assert json.load(file) == {key: value for key, value in result.items() if key != "file"}


@pytest.mark.filterwarnings("ignore")
def test_what_a_killed_call_left_is_written_again(place, result, monkeypatch):
    uri, client = place

    def interrupt(result):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("toolchain.report.tracking.figures", interrupt)
        with pytest.raises(KeyboardInterrupt):
            track([result], f"mlflow:{uri}")
    assert track([result], f"mlflow:{uri}")["runs"][0]["state"] == "written"
    assert len(client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_is_down_is_one_error(place, result):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        to = f"mlflow:http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(MachineError, match=rf"^--to {to}: the tracking server cannot be used \(\w+\)\. Start it"):
            track([result], to)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    yield module
    module.teardown()  # its settings are those of the first call in a process


@pytest.mark.filterwarnings("ignore")
def test_a_result_is_one_run_of_weights_and_biases(wandb, result, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    first, again = (track([result], "wandb")["runs"][0] for _ in range(2))
    assert first["run"] == again["run"] == first["sha256"][:32]
    folders = list(tmp_path.glob("wandb/offline-run-*"))
    assert {folder.name.rpartition("-")[2] for folder in folders} == {first["run"]}
    kept = b"".join(file.read_bytes() for file in folders[0].glob("*.wandb"))
    assert b"metrics.accuracy" in kept
    assert b"0.8812" in kept


@pytest.mark.slow  # it tries for ten seconds
@pytest.mark.filterwarnings("ignore")
def test_a_server_of_weights_and_biases_that_is_down_is_one_error(wandb, result, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(MachineError, match=r"^--to wandb: the tracking server cannot be used \(CommError\)\. Start it"):
        track([result], "wandb")
