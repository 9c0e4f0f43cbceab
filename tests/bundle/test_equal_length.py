"""A model whose answers depend on padding: everything of ours that batches runs only rows of one length together.

It is an FNet, which mixes padding into every row, and its tokenizer truncates on the left. What is right comes from
transformers, one text at a time.
"""

import asyncio
import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import toolchain
from tests.architectures import edit, make
from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.diagnose.probe import open_probe_graph
from toolchain.diagnose.verify import verify
from toolchain.errors import UsageError
from toolchain.evaluation.target import find_target
from toolchain.recipe import Recipe
from toolchain.serve.service import open_service
from toolchain.ship.signature import signature
from toolchain.ship.tokens import settings, standalone_tokenizer
from toolchain.ship.triton import CODE

LENGTH = 12
TEXTS = ["a good film", "no", "a bad film and a dull film and a sad film that we hate", "a bad film", "we see a dog"]


@pytest.fixture(scope="module")
def home(once):
    def fill(folder):
        edit(make(folder / "model", "FNet"), "tokenizer_config.json", truncation_side="left")
        values = {"model": str(folder / "model"), "task": "sst2", "precision": "fp32", "max_length": LENGTH}
        build(Recipe.make(values | {"output": str(folder / "bundle")}), engine=False)

    return once("fnet", fill)


@pytest.fixture(scope="module")
def bundle(home):
    return home / "bundle"


@pytest.fixture(scope="module")
def expected(home):
    """The ids and the logits that transformers gives for each text alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    model = AutoModelForSequenceClassification.from_pretrained(home / "model").eval()
    rows = [tokenizer(text, truncation=True, max_length=LENGTH) for text in TEXTS]
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([row["input_ids"]])).logits[0].numpy() for row in rows]
    return [row["input_ids"] for row in rows], np.array(logits)


def test_the_bundle_says_so(bundle):
    assert open_bundle(bundle).manifest["model"]["batches"] == "equal_length"


def test_the_python_api_answers_as_transformers(bundle, expected):
    with toolchain.load(bundle, device="cpu") as classifier:
        np.testing.assert_allclose(classifier.logits(TEXTS * 3), np.tile(expected[1], (3, 1)), atol=1e-4)


def test_the_service_answers_as_transformers(bundle, expected):
    async def answers():
        async with open_service(bundle, device="cpu") as service:
            alone = [service.classify([(text,)], list) for text in TEXTS]
            return await asyncio.gather(service.classify([(text,) for text in TEXTS], list), *alone)

    together, *alone = asyncio.run(answers())
    wanted = np.exp(expected[1]) / np.exp(expected[1]).sum(axis=1, keepdims=True)
    for found in (together, [row for (row,) in alone]):
        scores = np.array([list(row["scores"].values()) for row in found])
        np.testing.assert_allclose(scores, wanted, atol=1e-4)


class Refusal:
    INVALID_ARG = "invalid"

    def __init__(self, message, code):
        self.message, self.code = message, code


def test_tritons_tokenizer_gives_the_same_ids_and_refuses_what_it_would_pad(bundle, expected, tmp_path, monkeypatch):
    target = find_target({"backend": "ort", "device": "cpu"}, bundle)
    inputs, _ = signature(bundle / "model.onnx")
    (tmp_path / "1").mkdir()
    (tmp_path / "1/tokenizer.json").write_text(standalone_tokenizer(target.resolved))
    own = settings(target.resolved, inputs, [16], max_characters=1000)
    (tmp_path / "1/settings.json").write_text(json.dumps(own))
    stub = SimpleNamespace(
        Tensor=lambda name, array: (name, array),
        InferenceResponse=lambda output_tensors, error=None: error or dict(output_tensors),
        TritonError=Refusal,
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(as_numpy=lambda: np.array(request, object)),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stub)
    spec = importlib.util.spec_from_file_location("model", CODE / "tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize({"model_repository": str(tmp_path), "model_version": "1"})
    *alone, mixed = model.execute([*[[text.encode()] for text in TEXTS], [text.encode() for text in TEXTS]])
    assert [one["input_ids"].tolist() for one in alone] == [[ids] for ids in expected[0]]
    assert "send each text alone" in mixed.message


def test_verify_passes_without_padding(bundle):
    record = verify(open_probe_graph(bundle, {}))
    assert record["passed"], record["cases"]
    assert "depend" in record["cases"][0]["note"]


@pytest.mark.parametrize("options", [{"cuda_graphs": True}, {"backend": "torch", "attention": "packed"}])
def test_options_that_pad_or_join_rows_are_refused(bundle, options):
    with pytest.raises(UsageError, match="depend on padding"):
        find_target({"backend": "ort", **options}, bundle)
