"""A real Triton and `toolchain serve` respond alike for texts and pairs, classification and regression."""

import contextlib
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from scipy.special import expit

from toolchain.bundle.build import build
from toolchain.data.probes import PROBES
from toolchain.recipe import Recipe
from toolchain.ship.options import Options
from toolchain.ship.triton import ship
from toolchain.workflow import evaluate

CUSTOM = {"task": "custom", "text_column": "sentence", "label_column": "label"}
KINDS = ("text", "two_texts", "number", "two_texts_number", "tags", "several", "vector", "two_texts_ranked")
TOPICS = ("joy", "fear", "höpe")
PAIRS = 'text_columns = ["one", "two"]\nlabel_column = "label"\n'
CHECKS = [not_a_server_error, checks.status_code_conformance, checks.response_schema_conformance]


@pytest.fixture(scope="module")
def bundles(tiny, demo_bundle, pair_bundle, begun_regression, exported_head, tmp_path_factory):
    """Return kind -> its FP32 bundle. Those of other tests have the export of some."""
    home = tmp_path_factory.mktemp("kinds")
    for name, text in (("vector", PAIRS), ("ranked", f'{PAIRS}head = "rerank"\n')):
        (home / f"{name}.toml").write_text(text)

    def made(kind, model, **task):
        build(Recipe.make(task | {"model": str(model), "precision": "fp32", "output": str(home / kind)}), engine=False)
        return home / kind

    begun_regression(home / "number")
    shutil.copytree(pair_bundle, home / "two_texts_ranked")
    several = {"labels": TOPICS, "problem_type": "multi_label_classification", "num_hidden_layers": 1}
    topics = tiny.make_checkpoint(home / "topics", "bert", **several)
    ranked = {"task": str(home / "ranked.toml"), "max_length": 32}
    pairs = CUSTOM | {"text_column": "one,two"}
    return {
        "text": demo_bundle,
        "two_texts": made("two_texts", exported_head("pairs", home / "two_texts"), **pairs),
        "number": home / "number",
        "two_texts_number": pair_bundle,
        "tags": made("tags", exported_head("tokens", home / "tags"), **CUSTOM),
        "several": made("several", topics, **CUSTOM, threshold=0.4),
        "vector": made("vector", exported_head("embedding", home / "vector"), task=str(home / "vector.toml")),
        "two_texts_ranked": made("two_texts_ranked", pair_bundle.parent / "model", **ranked),
    }


@pytest.fixture(scope="module")
def real(triton, triton_environment, bundles, tmp_path_factory):
    """Return a running Triton with all bundles."""
    work = tmp_path_factory.mktemp("triton")
    for kind, bundle in bundles.items():
        ship(bundle, work / "models", Options(name=kind, backend="python", max_batch=16))
    with triton.serve(work / "models", work, triton_environment) as server:
        yield server


@pytest.fixture(scope="module")
def own(triton, triton_environment, bundles, tmp_path_factory):
    """Return kind -> a running `toolchain serve`."""
    log = tmp_path_factory.mktemp("own") / "log"
    ports = ["--http-port", "0", "--grpc-port", "0", "--drain", "0", "--json"]
    with contextlib.ExitStack() as stack:
        begun = {}
        for kind, bundle in bundles.items():
            command = [sys.executable, "-m", "toolchain", "serve", str(bundle), "--name", kind, *ports]
            begun[kind] = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(begun[kind].terminate)
        said = {kind: json.loads(process.stdout.readline()) for kind, process in begun.items()}
        yield {
            kind: triton.Server(one["http"].removeprefix("http://"), one["grpc"], "", log, triton_environment)
            for kind, one in said.items()
        }


@pytest.mark.parametrize("wire", ["http", "grpc"])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_scores_and_logits_are_equal(real, own, kind, wire):
    texts = [[text] for text in PROBES]
    inputs = {"TEXT": texts} | ({"TEXT_PAIR": texts[::-1]} if "two_texts" in kind else {})
    call = {"wire": wire, "model": kind, "inputs": inputs}
    (theirs,), (ours,) = real.ask(call), own[kind].ask(call)
    if kind == "vector":
        assert set(theirs) - {"TRUNCATED"} == set(ours) == {"EMBEDDING"}
        assert np.shape(ours["EMBEDDING"]) == (len(texts), 64)
        np.testing.assert_allclose(theirs["EMBEDDING"], ours["EMBEDDING"], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(ours["EMBEDDING"], axis=1), 1, rtol=1e-5)
        return
    if kind == "tags":
        for (found,), (expected,), (text,) in zip(theirs["ENTITIES"], ours["ENTITIES"], texts, strict=True):
            own = json.loads(expected)
            assert json.loads(found) == [{**one, "score": pytest.approx(one["score"], abs=1e-5)} for one in own]
            assert all(text[one["start"] : one["end"]] == one["text"] for one in own)
        assert sum(expected != "[]" for (expected,) in ours["ENTITIES"]) > 1
        return
    for name in ("SCORE", "LOGITS"):
        np.testing.assert_allclose(theirs[name], ours[name], atol=1e-5, rtol=1e-5)
        assert np.shape(theirs[name]) == np.shape(ours[name])
    assert len({tuple(row) for row in ours["LOGITS"]}) > 1  # the logits differ between texts
    if "ranked" in kind:
        assert set(theirs) - {"TRUNCATED"} == set(ours) == {"SCORE", "LOGITS"}
        np.testing.assert_allclose(ours["SCORE"], expit(np.array(ours["LOGITS"])), rtol=1e-5)
    elif "number" in kind:
        for found in (theirs, ours):
            assert [[np.float32(label)] for (label,) in found["LABEL"]] == np.float32(found["SCORE"]).tolist()
    else:
        assert theirs["LABEL"] == ours["LABEL"]
    if kind == "several":
        names = np.array(TOPICS)
        expected = [names[np.array(row) >= np.float32(0.4)].tolist() for row in ours["SCORE"]]
        assert [json.loads(label) for (label,) in ours["LABEL"]] == expected


# Kind -> labels of rows, for those that a server can be evaluated with.
LABELS = {
    "two_texts": ["neutral", "entailment"],
    "number": [0.5, 2],
    "several": [["joy"], ["fear", "höpe"], []],
    "vector": [0.1, 4.0, 2.5],
    "two_texts_ranked": [1, 0, 2],
}


@pytest.mark.parametrize("backend", ["service", "triton"])
@pytest.mark.parametrize("kind", LABELS)
def test_evaluation_of_a_server_equals_that_without_one(real, own, bundles, tmp_path, kind, backend):
    texts = [text for text in PROBES if text.strip()]
    lines = [
        json.dumps(
            {"sentence": text, "one": texts[row // 3], "two": text, "label": LABELS[kind][row % len(LABELS[kind])]}
        )
        for row, text in enumerate(texts)
    ]
    (tmp_path / "validation.jsonl").write_text("\n".join(lines))
    server = {"service": own[kind], "triton": real}[backend]
    given = {"data": str(tmp_path), "url": f"http://{server.http}/v2/models/{kind}"}
    there = evaluate(given | {"backend": backend}, bundle=bundles[kind], tell=lambda line: None)
    here = evaluate(
        {"data": str(tmp_path), "file": "model.onnx", "device": "cpu"}, bundle=bundles[kind], tell=lambda line: None
    )
    assert there["metrics"] == pytest.approx(here["metrics"], abs=1e-6)
    assert there["agreement"]["max_abs_logit_difference"] < 1e-4
    assert (there["n"], there["device"]) == (len(texts), "remote")


def post(server, path, body):
    request = urllib.request.Request(f"http://{server.http}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_clients_of_other_servers_get_the_same_vectors_and_scores(own):
    (found,) = own["vector"].ask({"wire": "http", "model": "vector", "inputs": {"TEXT": [[text] for text in PROBES]}})
    vectors = post(own["vector"], "/v1/embeddings", {"input": list(PROBES)})["data"]
    np.testing.assert_allclose([one["embedding"] for one in vectors], found["EMBEDDING"], atol=1e-6)
    inputs = {"TEXT": [[PROBES[0]]] * len(PROBES), "TEXT_PAIR": [[text] for text in PROBES]}
    (found,) = own["two_texts_ranked"].ask({"wire": "http", "model": "two_texts_ranked", "inputs": inputs})
    order = post(own["two_texts_ranked"], "/rerank", {"query": PROBES[0], "texts": list(PROBES)})
    scores = np.ravel(found["SCORE"])
    np.testing.assert_allclose([one["score"] for one in order], np.sort(scores)[::-1], atol=1e-6)
    np.testing.assert_allclose([one["score"] for one in order], scores[[one["index"] for one in order]], atol=1e-6)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        post(own["text"], "/v1/embeddings", {"input": "a"})


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("kind", "path"), [("vector", "/v1/embeddings"), ("two_texts_ranked", "/rerank")])
def test_responses_in_the_form_of_other_servers_keep_the_document(own, kind, path, mode):
    address = f"http://{own[kind].http}"
    operation = schemathesis.openapi.from_url(f"{address}/openapi.json")[path]["post"]
    statuses = set()

    @seed(3)
    @settings(max_examples=25, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case):
        response = case.call(base_url=address)
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    ask()
    assert statuses & ({200} if mode is GenerationMode.POSITIVE else {400})
