"""A real Triton serves the repositories unchanged to its own client, over HTTP and gRPC."""

import json
import re
import subprocess
import urllib.request

import numpy as np
import pytest
import scipy.special

from toolchain.bundle import open_bundle
from toolchain.bundle.resolved_recipe import resolve_bundle
from toolchain.data.probes import PROBES
from toolchain.evaluation.stages import find_stage, run_choices
from toolchain.evaluation.target import find_target, recorded
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run
from toolchain.runtimes.cascade import passed_on

WIRES = ("http", "grpc")
OUTPUTS = ["LABEL", "SCORE", "LOGITS", "TRUNCATED"]
STATUS = {"http": {400: "400", 503: "503"}, "grpc": {400: "StatusCode.INVALID_ARGUMENT", 503: "StatusCode.UNAVAILABLE"}}


@pytest.fixture(scope="module")
def logits_of():
    """Return the evaluator's logits: each row alone, without padding."""

    def run(path, file, texts):
        bundle = open_bundle(path)
        tokens = resolve_bundle(bundle, recorded(bundle, {})).encode(texts)
        with open_runtime("ort", bundle.file(file), device="cpu", precision="fp32") as infer:
            return np.concatenate([infer(tokens.batch(np.array([row]))) for row in range(len(tokens))])

    return run


def column(texts):
    return [[text] for text in texts]


@pytest.mark.parametrize("wire", WIRES)
def test_texts_get_the_evaluators_logits(server, logits_of, demo_bundle, wire):
    (found,) = server.ask({"wire": wire, "model": "sentiment", "inputs": {"TEXT": column(PROBES)}})
    wanted = logits_of(demo_bundle, "model.fp32.cpu.onnx", column(PROBES))
    np.testing.assert_allclose(found["LOGITS"], wanted, atol=1e-5)
    np.testing.assert_allclose(found["SCORE"], scipy.special.softmax(wanted, axis=1), atol=1e-5)
    assert found["LABEL"] == column(["negative", "positive"][index] for index in wanted.argmax(axis=1))


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("model", ["plan", "graph"])
def test_pairs_and_regression_get_the_evaluators_logits(server, logits_of, pairs_bundle, model, wire):
    texts = [("a good film", "the plot"), ("cold soup " * 30, "x"), ("see", "the dog and the cat")]
    inputs = {"TEXT": column(one for one, _ in texts), "TEXT_PAIR": column(other for _, other in texts)}
    (found,) = server.ask({"wire": wire, "model": model, "inputs": inputs})
    wanted = logits_of(pairs_bundle, "model.fp16.onnx", texts)
    np.testing.assert_allclose(found["LOGITS"], wanted, atol=1e-4, rtol=1e-3)
    assert found["SCORE"] == found["LOGITS"]
    assert found["TRUNCATED"] == [[False], [True], [False]]
    assert [np.float32(label) for (label,) in found["LABEL"]] == [np.float32(row[0]) for row in found["LOGITS"]]


def in_stages(path, texts):
    """Return the evaluator's logits of a cascade, and which rows the second stage answers."""
    target = find_target({"device": "cpu"}, path)
    tokens = target.resolved.encode(texts)
    with open_runtime(target.backend, target.model, **run_choices(target)) as infer:
        logits = run(infer, tokens).logits
    stage = find_stage(target)
    with stage.open({}) as first:
        return logits, passed_on(run(first, tokens).logits, stage.threshold)


def counted_rows(server, model):
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as page:
        found = re.findall(r"toolchain_cascade_rows{(.*)} (\S+)", page.read().decode())
    return {
        stage: sum(float(value) for labels, value in found if f'model="{model}"' in labels and f'"{stage}"' in labels)
        for stage in ("first", "second")
    }


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("model", "bundle"), [("both", "cascade_bundle"), ("bundles", "cascade_of_bundles")])
def test_rows_of_a_cascade_get_the_evaluators_logits_and_the_name_of_their_stage(
    server, request, demo_bundle, model, bundle, wire
):
    texts = find_target({}, demo_bundle).resolved.rows("validation").texts[:192]
    wanted, rest = in_stages(request.getfixturevalue(bundle), texts)
    before = counted_rows(server, model)
    calls = [
        {"wire": wire, "model": model, "inputs": {"TEXT": column(text for (text,) in texts[start : start + size])}}
        for size, starts in ((16, range(0, 160, 16)), (1, range(160, 192)))
        for start in starts
    ]
    found = server.ask(*calls)
    np.testing.assert_allclose(np.concatenate([one["LOGITS"] for one in found]), wanted, atol=1e-5)
    stages = [stage for one in found for (stage,) in one["STAGE"]]
    assert stages == ["second" if passed else "first" for passed in rest]
    assert 0 < rest.sum() < len(rest)
    after = counted_rows(server, model)
    assert {stage: after[stage] - before[stage] for stage in after} == {"first": (~rest).sum(), "second": rest.sum()}


def test_a_cascade_counts_every_row_of_many_clients(server):
    before = counted_rows(server, "both")
    call = {"wire": "grpc", "model": "both", "inputs": {"TEXT": [["a good film"], ["the plot"]]}}
    assert server.ask({**call, "clients": 16, "each": 25}) == [{"ok": 400}]
    after = counted_rows(server, "both")
    assert sum(after.values()) - sum(before.values()) == 800


@pytest.mark.parametrize("wire", WIRES)
def test_a_request_may_name_a_single_output(server, wire):
    call = {"wire": wire, "model": "sentiment", "inputs": {"TEXT": column(PROBES)}}
    alone = [[name] for name in OUTPUTS]
    whole, *found = server.ask(call, *(call | {"outputs": names} for names in [*alone, OUTPUTS[:2], OUTPUTS[1:]]))
    for names, some in zip([*alone, OUTPUTS[:2], OUTPUTS[1:]], found, strict=True):
        assert some == {name: whole[name] for name in names}


def test_json_and_binary_tensors_agree(server):
    call = {"wire": "http", "model": "sentiment", "inputs": {"TEXT": column(PROBES)}}
    binary, plain = server.ask(call, call | {"json": True})
    np.testing.assert_allclose(plain["LOGITS"], binary["LOGITS"], atol=1e-6)
    assert plain["LABEL"] == binary["LABEL"]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hex": {"TEXT": [["ff"]]}}, "TEXT is not UTF-8"),
        ({"inputs": {"TEXT": [["x" * 20_000]]}}, "TEXT has 20000 characters; the limit is 16384"),
        ({"inputs": {"TEXT": [["x"]] * 9}}, "batch-size must be <= 8"),
    ],
    ids=["not UTF-8", "too long", "too many"],
)
def test_an_invalid_request_is_refused_and_the_next_one_works(server, wire, given, message):
    call = {"wire": wire, "model": "sentiment"}
    refused, answered = server.ask(call | given, call | {"inputs": {"TEXT": [["fine"]]}})
    assert message in refused["message"]
    assert refused["status"] == STATUS[wire][400]
    assert "/" not in refused["message"].replace("TEXT", "").partition("NOTE")[0]  # no path of a file
    assert answered["LABEL"]


def statistics(server, model):
    return server.get(f"/v2/models/{model}/stats")["model_stats"][0]


def test_the_models_are_warmed_up_before_the_server_is_ready(server):
    """Each length bucket alone, and the largest batch."""
    for model, most in (("sentiment", 8), ("plan", 8), ("graph", 4)):
        sizes = {one["batch_size"] for one in statistics(server, f"{model}_classifier")["batch_stats"]}
        assert {1, most} <= sizes


def test_requests_of_one_length_are_merged(server):
    before = statistics(server, "graph_classifier")
    texts = {"TEXT": [["a good film"]], "TEXT_PAIR": [["the plot"]]}
    (found,) = server.ask({"wire": "grpc", "model": "graph", "inputs": texts, "clients": 16, "each": 25})
    after = statistics(server, "graph_classifier")
    rows, runs = (after[key] - before[key] for key in ("inference_count", "execution_count"))
    assert found == {"ok": 400}
    assert rows == 400
    assert runs < rows


@pytest.mark.parametrize("wire", WIRES)
def test_a_full_queue_is_refused(server, wire):
    texts = {"TEXT": [["a good film " * 20]] * 8, "TEXT_PAIR": [["the plot"]] * 8}
    (found,) = server.ask({"wire": wire, "model": "plan", "inputs": texts, "clients": 24, "each": 8})
    assert found.pop("ok") > 0
    assert set(found) == {STATUS[wire][503]}


def test_a_repeated_text_is_answered_from_the_cache(server):
    call = {"wire": "grpc", "model": "sentiment", "inputs": {"TEXT": [["an answer that is kept"]]}}
    first, again = server.ask(call, call)
    assert first == again
    assert statistics(server, "sentiment_classifier")["inference_stats"]["cache_hit"]["count"] > 0


def test_the_server_reports_the_configuration(server):
    config = server.get("/v2/models/plan_classifier/config")
    assert config["instance_group"][0]["count"] == 2
    assert len(config["optimization"]["cuda"]["graph_spec"]) == 2 * 4  # two lengths, batches of 1, 2, 4 and 8
    assert server.get("/v2/models/plan")["versions"] == ["1"]


@pytest.mark.parametrize("model", ["sentiment", "plan"])
def test_the_request_in_the_readme_works(server, shipped, model):
    (line,) = (line for line in (shipped / model / "README.md").read_text().splitlines() if "curl" in line)
    command = line.replace("localhost:8000", server.http)
    found = json.loads(subprocess.run(command, shell=True, check=True, capture_output=True).stdout)
    assert {one["name"] for one in found["outputs"]} == set(OUTPUTS)


def test_the_server_exports_the_metrics_of_the_autoscaler(root, server):
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as answer:
        counted = answer.read().decode()
    series = set(re.findall(r"nv_inference_\w+", (root / "docker/kubernetes/monitoring.yaml").read_text()))
    assert len(series) == 2
    assert all(f'{name}{{model="sentiment_classifier"' in counted for name in series)


@pytest.mark.parametrize("wire", WIRES)
def test_perf_analyzer_runs_against_the_server(server, perf_analyzer, by_path, tmp_path, wire):
    address = getattr(server, wire)
    assert by_path("triton/perf").measured_per_s(perf_analyzer, tmp_path, wire, address, PROBES) > 0
