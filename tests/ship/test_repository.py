"""The Python models of a repository, run as Triton's stub runs them."""

import ast
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special

import toolchain.runtimes.tfidf
import toolchain.ship.triton
from toolchain.bundle import open_bundle
from toolchain.bundle.resolved_recipe import resolve_bundle
from toolchain.evaluation.stages import find_stage
from toolchain.evaluation.target import find_target, recorded
from toolchain.runtimes.batched import run
from toolchain.runtimes.cascade import passed_on
from toolchain.ship.config import read_config

CODE = sorted(toolchain.ship.triton.CODE.glob("*.py"))
TFIDF = Path(toolchain.runtimes.tfidf.__file__)
ALLOWED = {"__future__", "json", "os", "typing", "numpy", "tokenizers", "onnxruntime", "triton_python_backend_utils"}
ALLOWED |= {"sys", "tfidf"}


@dataclass
class Tensor:
    name: str
    array: np.ndarray

    def as_numpy(self):
        return self.array


class TritonError(Exception):
    INVALID_ARG, INTERNAL = "INVALID_ARG", "INTERNAL"

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


@dataclass
class InferenceResponse:
    output_tensors: list
    error: TritonError | None = None

    def __getitem__(self, name):
        return next(one.array for one in self.output_tensors if one.name == name)


@pytest.fixture
def model(shipped, monkeypatch):
    """Return a function that loads a model of the repository with a stand-in for Triton's own module."""
    logged = []
    stub = SimpleNamespace(
        Tensor=Tensor,
        InferenceResponse=InferenceResponse,
        TritonError=TritonError,
        logged=logged,
        Logger=SimpleNamespace(log_error=logged.append, log_warn=logged.append),
        PreferredMemory=lambda kind, device: None,
        TRITONSERVER_MEMORY_CPU=0,
        get_input_tensor_by_name=lambda request, name: Tensor(name, request[name]),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stub)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def load(name):
        config = read_config(shipped / name / "config.pbtxt")
        inputs = json.dumps({"input": [{"name": one.name} for one in config.input]})
        spec = importlib.util.spec_from_file_location(name, shipped / name / "1/model.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        loaded = module.TritonPythonModel()
        args = {"model_repository": str(shipped / name), "model_version": "1", "model_config": inputs}
        loaded.initialize(args)
        loaded.logged = logged
        return loaded

    return load


def request(**columns):
    return {name: np.array([[one] for one in texts], np.object_) for name, texts in columns.items()}


def resolved(path):
    bundle = open_bundle(path)
    return resolve_bundle(bundle, recorded(bundle, {}))


def evaluated(path, texts):
    return resolved(path).encode(texts)


@pytest.mark.parametrize("file", [*CODE, TFIDF], ids=lambda file: file.name)
def test_the_models_are_python_3_8_and_import_few_packages(file):
    tree = ast.parse(file.read_text(), feature_version=(3, 8))
    imported = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    imported += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in imported} <= ALLOWED


def test_the_models_are_copied_verbatim(shipped):
    for file in CODE:
        name = "both" if file.stem == "cascade" else "sentiment"
        assert (shipped / f"{name}_{file.stem}/1/model.py").read_bytes() == file.read_bytes()


TEXTS = ["A fine film.", "", "naïve café \u202e 日本 🙂", "word " * 500, "[SEP] [MASK] x\0y"]


def test_ids_equal_the_evaluators(model, demo_bundle):
    wanted = evaluated(demo_bundle, [(text,) for text in TEXTS])
    (found,) = model("sentiment_tokenizer").execute([request(TEXT=[text.encode() for text in TEXTS])])
    batch = wanted.batch(np.arange(len(TEXTS)), length=128)
    for name, ids in batch.items():
        np.testing.assert_array_equal(found[name], ids)
        assert found[name].dtype == np.int32


def test_ids_of_pairs_equal_the_evaluators_token_types_included(model, pairs_bundle):
    pairs = [("a good day", "the dog"), ("word " * 90, "x " * 10), ("", "see")]
    tokens = evaluated(pairs_bundle, pairs)
    wanted = tokens.batch(np.arange(3), length=32)
    columns = {"TEXT": [one.encode() for one, _ in pairs], "TEXT_PAIR": [other.encode() for _, other in pairs]}
    (found,) = model("plan_tokenizer").execute([request(**columns)])
    assert found["token_type_ids"].any()
    assert found["truncated"][:, 0].tolist() == resolved(pairs_bundle).find_cut(pairs, tokens.lengths).tolist()
    assert found["truncated"].any()
    for name, ids in wanted.items():
        np.testing.assert_array_equal(found[name], ids)


def test_a_text_that_is_longer_than_the_model_reads_is_flagged(model, demo_bundle):
    limit = resolved(demo_bundle).max_length - 2
    texts = [". " * count for count in (1, limit, limit + 1, 3000)]
    (found,) = model("sentiment_tokenizer").execute([request(TEXT=[text.encode() for text in texts])])
    assert found["truncated"].tolist() == [[False], [False], [True], [True]]
    assert found["truncated"].dtype == np.bool_


def test_each_request_is_padded_to_its_own_bucket(model):
    found = model("sentiment_tokenizer").execute([request(TEXT=[b"ok"]), request(TEXT=[b"good " * 20, b"x"])])
    assert [one["input_ids"].shape for one in found] == [(1, 16), (2, 32)]


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"\xff", "TEXT is not UTF-8"), (b"x" * 16_385, "TEXT has 16385 characters; the limit is 16384")],
)
def test_an_invalid_request_does_not_affect_the_others(model, text, message):
    good, bad, other = model("sentiment_tokenizer").execute(
        [request(TEXT=[b"fine"]), request(TEXT=[b"fine", text]), request(TEXT=[b"fine"])]
    )
    assert (str(bad.error), bad.error.code, bad.output_tensors) == (message, "INVALID_ARG", [])
    np.testing.assert_array_equal(good["input_ids"], other["input_ids"])


def test_characters_are_counted_and_not_bytes(model):
    (found,) = model("sentiment_tokenizer").execute([request(TEXT=["日".encode() * 16_384])])
    assert found.error is None


def test_the_decoder_returns_labels_and_scores(model):
    logits = np.array([[1, -2], [90, 100], [-1000, 1000]], np.float32)
    (found,) = model("sentiment_decoder").execute([{"logits": logits}])
    assert found["LABEL"].tolist() == [[b"negative"], [b"positive"], [b"positive"]]
    np.testing.assert_allclose(found["SCORE"], scipy.special.softmax(logits, axis=1), rtol=1e-6)
    assert found["SCORE"].dtype == np.float32
    np.testing.assert_array_equal(found["LOGITS"], logits)


def test_regression_returns_the_number_as_text(model):
    values = np.array([[0.1], [-3.25], [1e-8]], np.float32)
    (found,) = model("plan_decoder").execute([{"logits": values}])
    assert [np.float32(text) for (text,) in found["LABEL"]] == values[:, 0].tolist()
    assert found["LABEL"][0, 0] == b"0.1"
    np.testing.assert_array_equal(found["SCORE"], values)


def test_the_classifier_runs_one_batch_and_hides_the_reason_of_a_failure(model, demo_bundle):
    tokens = evaluated(demo_bundle, [("good",), ("bad bad",), ("fine",)])
    batches = [tokens.batch(rows, length=16) for rows in (np.array([0, 1]), np.array([2]))]
    classifier = model("sentiment_classifier")
    found = classifier.execute(batches)
    assert [one["logits"].shape for one in found] == [(2, 2), (1, 2)]
    (failed,) = classifier.execute([{name: ids + 10**6 for name, ids in batches[1].items()}])
    assert (str(failed.error), failed.error.code) == ("the engine failed on this batch", "INTERNAL")
    assert classifier.logged


class Failed:
    """Triton's error of a model that another one asked."""

    def message(self):
        return "Exceeds maximum queue size"

    def code(self):
        return "UNAVAILABLE"


def test_a_cascade_asks_the_classifier_for_unsure_rows_alone_and_passes_its_error_on(model, cascade_bundle):
    cascade = model("both_cascade")
    assert cascade.counts == {}  # this server has no metrics
    assert any("are not counted" in line for line in cascade.logged)
    target = find_target({"device": "cpu"}, cascade_bundle)
    tokens = target.resolved.encode(target.resolved.rows("validation").texts[:64])
    stage = find_stage(target)
    with stage.open({}) as first:
        wanted = run(first, tokens).logits
    rest = passed_on(wanted, stage.threshold)
    asked = []

    def second(batch):
        asked.append(batch["input_ids"])
        return np.full((len(batch["input_ids"]), 2), 7, np.float32)

    cascade.second, cascade.inputs = second, ["input_ids", "attention_mask"]
    batch = tokens.batch(np.arange(64), length=128)
    found = cascade.execute(
        [{name: ids[:40] for name, ids in batch.items()}, {name: ids[40:] for name, ids in batch.items()}]
    )
    logits = np.concatenate([one["logits"] for one in found])
    np.testing.assert_allclose(logits[~rest], wanted[~rest], atol=1e-5)
    assert (logits[rest] == 7).all()
    np.testing.assert_array_equal(asked[0], batch["input_ids"][rest])
    stages = np.concatenate([one["STAGE"][:, 0] for one in found])
    assert stages.tolist() == ["second" if passed else "first" for passed in rest]

    def failing(batch):
        raise sys.modules["both_cascade"].StageError(Failed())

    cascade.second = failing
    parts = (rest.nonzero()[0], (~rest).nonzero()[0])
    failed, sure = cascade.execute([{name: ids[rows] for name, ids in batch.items()} for rows in parts])
    assert (str(failed.error), failed.error.code) == ("Exceeds maximum queue size", "UNAVAILABLE")
    assert sure.error is None
    np.testing.assert_allclose(sure["logits"], wanted[~rest], atol=1e-5)


def test_a_batch_of_a_stage_is_as_short_as_its_lengths_allow(model):
    shortened = sys.modules[type(model("both_cascade")).__module__].shortened
    mask = np.zeros((2, 64), np.int32)
    mask[0, :9] = 1
    for longest, length in ((9, 16), (16, 16), (17, 32), (33, 64), (64, 64)):
        mask[1] = np.arange(64) < longest
        assert shortened({"attention_mask": mask, "input_ids": mask}, [16, 32, 64, 128])["input_ids"].shape == (
            2,
            length,
        )
    assert shortened({"input_ids": mask[:, :50]}, [16, 32])["input_ids"].shape == (2, 50)


def test_settings_are_json(shipped):
    settings = json.loads((shipped / "plan_tokenizer/1/settings.json").read_text())
    assert settings["buckets"] == [16, 32]
    assert [one["name"] for one in settings["outputs"]] == ["input_ids", "attention_mask", "token_type_ids"]
