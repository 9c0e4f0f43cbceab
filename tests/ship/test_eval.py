"""`eval --backend triton` against a real Triton gives the same results as the same graph without a server."""

import shutil

import numpy as np
import pytest

from toolchain.bundle.build import build
from toolchain.errors import InputError
from toolchain.evaluation.results import read_predictions
from toolchain.recipe import Recipe
from toolchain.workflow import evaluate

PAIRS = ["a good film,the plot,3.5", "cold soup,the dog and the cat,1", "see,the day,0.5", "the cat,a good day,4"]


@pytest.fixture
def bundle(demo_bundle, tmp_path):
    return shutil.copytree(demo_bundle, tmp_path / "bundle")


@pytest.fixture
def pairs(pairs_bundle, tmp_path):
    """Return a copy of the bundle for pairs, and a folder with rows for it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "validation.csv").write_text("sentence1,sentence2,label\n" + "\n".join(PAIRS) + "\n")
    return shutil.copytree(pairs_bundle, tmp_path / "pairs"), data


def logits(bundle, result):
    return read_predictions(bundle / "results" / result["predictions"]["file"]).logits


def test_logits_and_accuracy_equal_those_without_a_server(server, bundle):
    here = evaluate({"backend": "ort", "device": "cpu", "limit": 64}, bundle=bundle)
    url = f"http://{server.http}/v2/models/sentiment"
    there = evaluate({"backend": "triton", "url": url, "limit": 64}, bundle=bundle)
    np.testing.assert_allclose(logits(bundle, there), logits(bundle, here), atol=1e-5)
    np.testing.assert_array_equal(logits(bundle, there).argmax(axis=1), logits(bundle, here).argmax(axis=1))
    assert there["metrics"] == here["metrics"]
    assert there["latency_ms"]["p50"] > 0
    assert (there["backend"], there["device"]) == ("triton", "remote")


@pytest.mark.parametrize("model", ["plan", "graph"])
def test_pairs_and_regression_equal_those_without_a_server(server, pairs, model):
    bundle, data = pairs
    choices = {"data": str(data)}
    here = evaluate(choices | {"backend": "ort", "device": "cpu", "file": "model.fp16.onnx"}, bundle=bundle)
    url = f"http://{server.http}/v2/models/{model}"
    there = evaluate(choices | {"backend": "triton", "url": url}, bundle=bundle)
    np.testing.assert_allclose(logits(bundle, there), logits(bundle, here), atol=1e-4, rtol=1e-3)
    assert there["metrics"] == pytest.approx(here["metrics"], abs=1e-3)


def test_a_server_with_another_bundle_is_refused(server, bundle):
    build(
        Recipe.make({"model": "demo", "task": "demo", "precision": "fp32", "max_length": 64, "output": str(bundle)}),
        engine=False,
    )
    with pytest.raises(
        InputError, match=r"serves the bundle [0-9a-f]{12}, not [0-9a-f]{12} \(SHA-256\)\. Give the bundle"
    ):
        evaluate({"backend": "triton", "url": f"http://{server.http}/v2/models/sentiment", "limit": 8}, bundle=bundle)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nope", r"nope.*\. Name a model of the server"),
        ("plan", r"plan takes TEXT, TEXT_PAIR .* and LOGITS\. Name a model"),
        ("sentiment_tokenizer", r"returns input_ids, attention_mask, truncated, not TEXT and LOGITS\. Name a model"),
    ],
)
def test_an_unknown_or_unsuitable_model_is_refused(server, bundle, model, message):
    with pytest.raises(InputError, match=message):
        evaluate({"backend": "triton", "url": f"http://{server.http}/v2/models/{model}", "limit": 8}, bundle=bundle)


def test_the_user_must_choose_among_several_suitable_models(server, pairs):
    bundle, data = pairs
    with pytest.raises(
        InputError, match=r"several models take TEXT and TEXT_PAIR and return LOGITS: graph, plan\. Name"
    ):
        evaluate({"backend": "triton", "url": f"http://{server.http}", "data": str(data)}, bundle=bundle)
