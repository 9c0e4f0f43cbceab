"""The real LoadGen issues queries, each sample is processed once, and each end of a test ends its process."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest

from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import MachineError
from toolchain.evaluation.mlperf.loadgen import DETAIL, SUMMARY, in_batches, one_by_one, run_loadgen
from toolchain.evaluation.mlperf.log import Log, outcome

needs_loadgen = pytest.mark.skipif(importlib.util.find_spec("mlperf_loadgen") is None, reason="needs LoadGen")

SETTINGS = {
    "SingleStream": {"min_duration_ms": 1000, "single_stream_expected_latency_ns": 20_000},
    "Offline": {"min_duration_ms": 1000, "offline_expected_qps": 5000, "min_query_count": 64},
    "Server": {"min_duration_ms": 1000, "server_target_qps": 300, "server_target_latency_ns": 10**9},
}


def read(run):
    return outcome(Log(run.logs[DETAIL].decode(), where="log"))


def at_once(rows):
    """Process nothing, and report all rows as one batch."""
    yield np.arange(len(rows))


@needs_loadgen
@pytest.mark.parametrize("scenario", SETTINGS)
def test_each_issued_sample_is_processed(scenario):
    seen = Counter()

    def process(rows):
        seen.update(rows.tolist())
        yield from np.array_split(np.arange(len(rows)), min(3, len(rows)))

    run = run_loadgen(scenario, SETTINGS[scenario], process, rows=64)
    found = read(run)
    assert found["samples"] == run.samples == seen.total()
    assert set(seen) <= set(range(64))
    assert found["settings"]["min_duration_s"] == 1
    assert found["errors"] == []
    assert b"MLPerf Results Summary" in run.logs[SUMMARY]


@needs_loadgen
def test_single_stream_issues_one_row_and_offline_all_at_once():
    sizes = {}
    for scenario in ("SingleStream", "Offline"):

        def process(rows, scenario=scenario):
            sizes.setdefault(scenario, []).append(len(rows))
            yield from at_once(rows)

        run_loadgen(scenario, SETTINGS[scenario], process, rows=64)
    assert set(sizes["SingleStream"]) == {1}
    assert len(sizes["Offline"]) == 1


@needs_loadgen
def test_queries_that_arrive_while_a_batch_runs_are_processed_together():
    sizes, go = [], threading.Event()

    def process(rows):
        sizes.append(len(rows))
        if len(sizes) == 1:
            go.wait(0.2)  # further queries arrive
        yield from at_once(rows)

    run_loadgen("Server", SETTINGS["Server"], process, rows=64)
    assert sizes[1] > 5


@needs_loadgen
def test_rules_are_mlperfs_unless_a_setting_replaces_them():
    found = read(run_loadgen("SingleStream", SETTINGS["SingleStream"], at_once, rows=8))
    assert found["settings"]["target_percentile"] == 90
    assert found["settings"]["seeds"]["qsl"] > 2**60  # of mlperf.conf; LoadGen's own default is 0


@needs_loadgen
@pytest.mark.parametrize("scenario", SETTINGS)
@pytest.mark.parametrize(
    "error", [ValueError("the model is broken"), ConnectionError("the server is gone"), KeyboardInterrupt()]
)
def test_an_error_of_the_model_ends_the_test_and_propagates(scenario, error):
    def process(rows):
        raise error
        yield

    long = {"min_duration_ms": 600_000, "single_stream_expected_latency_ns": 10**7, "offline_expected_qps": 10}
    with pytest.raises(type(error)) as raised:
        run_loadgen(scenario, SETTINGS[scenario] | long, process, rows=64)
    assert raised.value is error


@needs_loadgen
def test_a_setting_that_loadgen_does_not_know_is_an_error_with_its_message():
    with pytest.raises(MachineError, match=r"LoadGen: its process ended with code 1 \(.*no_such_rule"):
        run_loadgen("SingleStream", {"no_such_rule": 1}, at_once, rows=8)


@needs_loadgen
def test_a_killed_process_is_an_error(monkeypatch):
    started, popen = [], subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    def process(rows):
        started[0].kill()
        started[0].wait()
        yield np.arange(len(rows))
        raise AssertionError("the process is gone")

    monkeypatch.setattr("toolchain.evaluation.mlperf.loadgen.subprocess.Popen", start)
    with pytest.raises(MachineError, match=r"LoadGen: its process ended with code -9 \(without a message\)"):
        run_loadgen("SingleStream", SETTINGS["SingleStream"], process, rows=8)


CTRL_C = """
from toolchain.evaluation.mlperf.loadgen import run_loadgen
def process(rows):
    print("issued", flush=True)
    yield from ()
run_loadgen("SingleStream", {"min_duration_ms": 600_000}, process, rows=8)
"""


@needs_loadgen
def test_ctrl_c_ends_both_processes_while_loadgen_waits(root):
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", CTRL_C]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as run:
        assert run.stdout.readline() == "issued\n"
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, errors = run.communicate(timeout=60)
    assert run.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")


def test_without_loadgen_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"pip install 'encoder-toolchain\[mlperf\]'"):
        run_loadgen("Offline", {}, at_once, rows=8)


TEXTS = [(" ".join("x" * (row + 1)),) for row in range(6)]  # row n has n + 1 tokens


class Model:
    """Records the rows of each batch, known by their lengths, and its shape."""

    def __init__(self):
        self.rows, self.shapes = [], []

    def encode(self, texts):
        ids = [[1] * len(text[0].split()) for text in texts]
        return Tokens({"input_ids": ids, "attention_mask": ids}, {"input_ids": 0, "attention_mask": 0})

    def infer(self, batch):
        self.rows.append((batch["attention_mask"].sum(axis=1) - 1).tolist())
        self.shapes.append(batch["input_ids"].shape)
        return np.zeros((len(batch["input_ids"]), 2), np.float32)


@pytest.fixture
def model():
    return Model()


def test_one_by_one_keeps_the_order(model):
    process = one_by_one(model.infer, model.encode, TEXTS)
    assert np.concatenate(list(process(np.array([4, 0, 4])))).tolist() == [0, 1, 2]
    assert model.rows == [[4], [0], [4]]
    assert model.shapes == [(1, 5), (1, 1), (1, 5)]


def test_batches_are_sorted_by_length_and_within_the_budget(model):
    process = in_batches(model.infer, model.encode, TEXTS, max_slots=10)
    asked = np.array([0, 5, 1, 4, 5, 2, 3, 0])
    positions = np.concatenate(list(process(asked)))
    assert sorted(positions.tolist()) == list(range(8))
    assert [row for rows in model.rows for row in rows] == asked[positions].tolist() == sorted(asked, reverse=True)
    assert all(rows * length <= 10 for rows, length in model.shapes)


def test_positions_come_as_soon_as_their_batch_is_processed(model):
    positions = in_batches(model.infer, model.encode, TEXTS, max_slots=6)(np.arange(6))
    next(positions)
    assert len(model.rows) == 1
