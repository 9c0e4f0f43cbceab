"""A model that is too large for one ONNX file, from the checkpoint to a Triton repository: the limit is 1 MB here."""

import numpy as np
import pytest

from toolchain import graph
from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.bundle.quantized import quantized_graph
from toolchain.errors import InputError
from toolchain.evaluation.target import find_target
from toolchain.graph.fp16 import to_half
from toolchain.int8.quantize import TENSORRT
from toolchain.recipe import Recipe
from toolchain.runtimes.ort import open_ort
from toolchain.ship.lint import lint
from toolchain.ship.options import Options
from toolchain.ship.triton import ship
from toolchain.workflow import evaluate

LIMIT = 2**20
TINY = {"dim": 128, "hidden_dim": 512, "initializer_range": 0.05}
# More than 2 GiB of weights: the table of token ids has most of them, because a look-up takes no time, and two layers
# of XLM-R large's sizes have the rest.
REAL = {
    "vocab_size": 520_000,
    "hidden_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "initializer_range": 0.02,
}


@pytest.mark.stress
def test_a_model_of_more_than_2_gib(tiny, sentences, tmp_path):
    """The limits themselves of protobuf and ONNX Runtime; the next test has every step, with the limit lowered."""
    checkpoint = tiny.make_checkpoint(tmp_path / "model", "roberta", **REAL)
    values = {"model": str(checkpoint), "data": str(sentences), "precision": "int8", "calib_samples": 12}
    bundle = tmp_path / "b"
    done = build(Recipe.make(values | {"output": str(bundle)}), steps=("export", "calibrate"), engine=False)
    assert (bundle / "model.onnx.data").stat().st_size > 2**31
    assert done["export"]["parity"]["max_abs_logit_difference"] < 1e-4

    model, _ = quantized_graph(bundle, TENSORRT, keep=None, residual=None)
    to_half(model)
    graph.save(model, tmp_path / "int8.onnx")
    assert not graph.data_file(tmp_path / "int8.onnx").exists()  # half of it fits
    target = find_target({"backend": "ort", "device": "cpu", "precision": "fp32"}, bundle)
    tokens = target.resolved.encode(target.resolved.rows("validation").texts[:8])
    logits = []
    for file in (target.model, tmp_path / "int8.onnx"):
        with open_ort(file, device="cpu") as infer:
            logits.append(infer(tokens.batch(np.arange(8))))
    assert np.abs(logits[1] - logits[0]).max() < 0.5

    ship(bundle, tmp_path / "repository", Options(name="large", backend="python", file="model.onnx"))
    assert lint(tmp_path / "repository")["errors"] == 0


def test_a_model_too_large_for_one_file(tiny, sentences, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "MAX_BYTES", LIMIT)
    checkpoint = tiny.make_checkpoint(tmp_path / "model", **TINY)
    values = {"model": str(checkpoint), "data": str(sentences), "calib_samples": 12, "output": str(tmp_path / "b")}
    done = build(Recipe.make(values | {"precision": "int8"}), engine=False)
    made = open_bundle(tmp_path / "b").manifest["artefacts"]
    assert {"model.onnx", "model.onnx.data"} < made.keys()
    assert "model.int8.onnx.data" not in made  # a quarter of it fits
    assert done["export"]["parity"]["max_abs_logit_difference"] < 1e-4
    assert build(Recipe.make(values | {"precision": "int8"}), engine=False)["up_to_date"]

    choices = {"backend": "ort", "device": "cpu", "limit": 8}
    full, small = (evaluate({**choices, "precision": name}, bundle=tmp_path / "b") for name in ("fp32", "int8"))
    assert full["agreement"]["max_abs_logit_difference"] < 1e-4
    assert small["agreement"]["max_abs_logit_difference"] < 0.5

    repository = tmp_path / "repository"
    ship(tmp_path / "b", repository, Options(name="large", backend="python", file="model.onnx"))
    assert lint(repository)["errors"] == 0
    (weights,) = repository.glob("large_classifier/*/model.onnx.data")
    weights.rename(tmp_path / "away")
    errors = [one["what"] for one in lint(repository)["findings"] if one["level"] == "error"]
    assert any("its weights are in model.onnx.data, which is missing" in what for what in errors), errors

    data = tmp_path / "b/model.onnx.data"
    with data.open("r+b") as file:
        file.seek(1000)
        file.write(b"\x55")
    with pytest.raises(InputError, match=r"model\.onnx\.data: changed since it was built"):
        open_bundle(tmp_path / "b")


@pytest.mark.slow  # tests/graph/test_large.py has the digest without a build
def test_other_weights_of_the_same_shapes_are_another_graph(tiny, tmp_path, monkeypatch):
    """Later steps depend on model.onnx by its digest, so that must be one of the weights too."""
    monkeypatch.setattr(graph, "MAX_BYTES", 4096)
    digests = set()
    for seed in (0, 1):
        checkpoint = tiny.make_checkpoint(tmp_path / f"model-{seed}", "distilbert", seed=seed, n_layers=1)
        values = {"model": str(checkpoint), "precision": "fp32", "output": str(tmp_path / f"b{seed}")}
        build(Recipe.make(values), steps=("export",), engine=False)
        digests.add(open_bundle(tmp_path / f"b{seed}").manifest["artefacts"]["model.onnx"])
    assert len(digests) == 2
