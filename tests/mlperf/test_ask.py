"""The real LoadGen asks, and every end of a test ends its process."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest

from toolchain.errors import MachineError
from toolchain.mlperf.ask import DETAIL, SUMMARY, ask
from toolchain.mlperf.log import Log, outcome

pytest.importorskip("mlperf_loadgen")

SETTINGS = {
    "SingleStream": {"min_duration_ms": 1000, "single_stream_expected_latency_ns": 20_000},
    "Offline": {"min_duration_ms": 1000, "offline_expected_qps": 5000, "min_query_count": 64},
    "Server": {"min_duration_ms": 1000, "server_target_qps": 300, "server_target_latency_ns": 10**9},
}


def block(asked):
    return outcome(Log(asked.logs[DETAIL].decode(), where="log"))


@pytest.mark.parametrize("scenario", SETTINGS)
def test_every_sample_that_is_issued_is_answered(scenario):
    rows = Counter()

    def answer(asked):
        rows.update(asked.tolist())
        yield from np.array_split(np.arange(len(asked)), min(3, len(asked)))

    asked = ask(scenario, SETTINGS[scenario], answer, rows=64)
    found = block(asked)
    assert found["samples"] == asked.samples == rows.total()
    assert set(rows) <= set(range(64))
    assert found["settings"]["min_duration_s"] == 1
    assert found["errors"] == []
    assert b"MLPerf Results Summary" in asked.logs[SUMMARY]


def test_single_stream_asks_for_one_and_offline_for_all_at_once():
    sizes = {}
    for scenario in ("SingleStream", "Offline"):

        def answer(asked, scenario=scenario):
            sizes.setdefault(scenario, []).append(len(asked))
            yield np.arange(len(asked))

        ask(scenario, SETTINGS[scenario], answer, rows=64)
    assert set(sizes["SingleStream"]) == {1}
    assert len(sizes["Offline"]) == 1


def test_what_arrives_meanwhile_waits_and_is_gathered():
    sizes, go = [], threading.Event()

    def answer(asked):
        sizes.append(len(asked))
        if len(sizes) == 1:
            go.wait(0.2)  # so many arrive meanwhile
        yield np.arange(len(asked))

    ask("Server", SETTINGS["Server"], answer, rows=64)
    assert sizes[1] > 5


def test_rules_are_mlperfs_where_nothing_else_is_asked_for():
    found = block(ask("SingleStream", SETTINGS["SingleStream"], lambda asked: iter([np.arange(len(asked))]), rows=8))
    assert found["settings"]["target_percentile"] == 90
    assert found["settings"]["seeds"]["qsl"] > 2**60  # of mlperf.conf; LoadGen's own default is 0


@pytest.mark.parametrize("scenario", SETTINGS)
@pytest.mark.parametrize("error", [ValueError("the model is broken"), KeyboardInterrupt()])
def test_an_error_of_the_model_ends_the_test_and_is_raised_as_itself(scenario, error):
    def answer(asked):
        raise error
        yield

    long = {"min_duration_ms": 600_000, "single_stream_expected_latency_ns": 10**7, "offline_expected_qps": 10}
    with pytest.raises(type(error)) as raised:
        ask(scenario, SETTINGS[scenario] | long, answer, rows=64)
    assert raised.value is error


def test_rules_that_loadgen_does_not_know_are_an_error_with_its_words():
    with pytest.raises(MachineError, match=r"LoadGen: ended with 1: .*no_such_rule"):
        ask("SingleStream", {"no_such_rule": 1}, lambda asked: iter([]), rows=8)


def test_a_process_that_dies_is_an_error(monkeypatch):
    started, popen = [], subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    def answer(asked):
        started[0].kill()
        started[0].wait()
        yield np.arange(len(asked))
        raise AssertionError("nobody is left to answer")

    monkeypatch.setattr("toolchain.mlperf.ask.subprocess.Popen", start)
    with pytest.raises(MachineError, match=r"LoadGen: ended with -9: it says nothing"):
        ask("SingleStream", SETTINGS["SingleStream"], answer, rows=8)


CTRL_C = """
import numpy as np
from toolchain.mlperf.ask import ask
def answer(asked):
    print("asked", flush=True)
    yield from ()
ask("SingleStream", {"min_duration_ms": 600_000}, answer, rows=8)
"""


def test_ctrl_c_ends_both_while_loadgen_waits(root):
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", CTRL_C]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as run:
        assert run.stdout.readline() == "asked\n"
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, errors = run.communicate(timeout=60)
    assert run.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")


def test_without_loadgen_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"pip install 'encoder-toolchain\[mlperf\]'"):
        ask("Offline", {}, lambda asked: iter([]), rows=8)
