"""Perplexity is that of PyTorch's cross entropy, over the same windows; intervals draw documents."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.generate.test_graph import PROMPTS
from toolchain.checkpoint.model import find_model
from toolchain.cli import main
from toolchain.errors import InputError, UsageError
from toolchain.generate.causal import load_causal
from toolchain.generate.decode_ort import Session
from toolchain.generate.explain import explain
from toolchain.generate.invariance import verify
from toolchain.generate.opened import open_file, open_lm
from toolchain.generate.perplexity import evaluate

ROUNDED = "with activations in 8 bits"

WINDOW = 8
DOCUMENTS = [" ".join(PROMPTS[start : start + 6]) for start in range(0, 42, 6)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    lines = [json.dumps({"text": text}) for text in DOCUMENTS]
    (folder / "validation.jsonl").write_text("\n".join(lines))
    return str(folder)


class LastRowWrong(Session):
    def run(self, ids, mask, cache, keep):
        logits, cache = super().run(ids, mask, cache, keep)
        # The common offset changes no probability, and must not make the tolerance wider.
        return 300 + logits * (1 + 0.003 * (np.arange(len(ids)) == 6)[:, None, None]), cache


class Noisy(Session):
    def run(self, ids, mask, cache, keep):
        logits, cache = super().run(ids, mask, cache, keep)
        return logits + np.random.default_rng(0).normal(scale=0.3 * logits.std(), size=logits.shape), cache


def score(place, data, **changes):
    return evaluate({"data": data, "device": "cpu", "max_length": WINDOW, **changes}, place, tell=lambda line: None)


def test_perplexity_is_that_of_cross_entropy(built, data):
    folder, output, _ = built
    source = find_model(str(folder))
    model = load_causal(source, device="cpu")
    total = count = 0
    for text in DOCUMENTS:
        ids = torch.tensor(source.tokenizer(text)["input_ids"])
        for start in range(0, len(ids) - 1, WINDOW - 1):
            part = ids[start : start + WINDOW]
            logits = model(input_ids=part[None]).logits[0, :-1].detach()
            total += torch.nn.functional.cross_entropy(logits, part[1:], reduction="sum").item()
            count += len(part) - 1
        assert len(ids) > WINDOW
    found = score(output, data, file="model.onnx")
    assert found["tokens_scored"] == count
    assert found["perplexity"] == pytest.approx(np.exp(total / count), rel=1e-5)
    low, high = found["perplexity_ci95"]
    assert low < found["perplexity"] < high
    assert found["reference"] is None
    assert json.loads((output / "results/lm-validation-ort-cpu-model.json").read_text()) == found
    lighter = score(output, data)
    assert (lighter["precision"], lighter["reference"]["perplexity"]) == ("int8", found["perplexity"])
    assert lighter["reference"]["ratio"] == pytest.approx(1, abs=0.02)
    assert np.diff(lighter["reference"]["ratio_ci95"]) < high / low - 1
    assert score(output, data, limit=1)["perplexity_ci95"] is None


def test_what_it_cannot_do_is_refused_in_one_line(built, data, tmp_path, capsys):
    _, output, _ = built
    with pytest.raises(UsageError, match=r"--energy: this option is not for .* `toolchain generate --energy`"):
        score(output, data, energy=True)
    with pytest.raises(UsageError, match="--max-length 1000: the model has 96 positions"):
        score(output, data, max_length=1000)
    with pytest.raises(InputError, match=r"no model\.int4\.onnx"):
        score(output, data, precision="int4")
    with pytest.raises(UsageError, match=r"--task sst2: .* is a language model"):
        score(output, data, task="sst2")
    with pytest.raises(
        UsageError,
        match=r"--file config\.json: this file is not a graph\. Choose one of model\.int8\.onnx, model\.onnx\.",
    ):
        score(output, data, file="config.json")
    for command in ("calibrate", "export"):
        assert main([command, str(output)]) == 2
        assert f"error: {command}: not for a language model" in capsys.readouterr().err
    for command, others in (("verify", "--data d"), ("explain", "--backend trt"), ("verify", "--precision int8")):
        assert main([command, str(output), *others.split()]) == 2
        assert f"error: {others.split()[0]}" in capsys.readouterr().err
    (tmp_path / "validation.jsonl").write_text('{"body": "a story"}')
    with pytest.raises(InputError, match="no column 'text'"):
        score(output, str(tmp_path))


def test_verify_and_explain_take_the_graphs_of_the_bundle(built):
    _, output, _ = built
    bundle = open_lm(output)
    for file in ("model.onnx", "model.int8.onnx"):
        found = verify(open_file(bundle, file, device="cpu"))
        assert found["passed"], found
        assert len(found["cases"]) == (5 if file == "model.onnx" else 9)
    typed = open_file(bundle, "model.int8.onnx", device="cpu")
    noisy = verify(replace(typed, session=Noisy(typed.session.session, typed.session.model, "cpu")))
    assert [case["name"].partition(",")[0] for case in noisy["cases"] if not case["passed"]] == [ROUNDED, ROUNDED]
    right = open_file(bundle, "model.onnx", device="cpu")
    wrong = verify(replace(right, session=LastRowWrong(right.session.session, right.session.model, "cpu")))
    assert [case["name"] for case in wrong["cases"] if not case["passed"]] == ["in a batch of equal rows"]
    assert explain(bundle, None)["share"] == 1
    plain = explain(bundle, "model.onnx")
    assert (plain["share"], plain["step_bytes"]) == (0, plain["fp32_step_bytes"])
