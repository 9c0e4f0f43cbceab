"""Every head on the whole path: build, gate, evaluate, verify, explain, tune, report, Python, predict, files.

`tests/ship/test_kinds.py` has the wires of a service and a real Triton for every head.
"""

import json
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from transformers import AutoModel, AutoTokenizer, pipeline

import toolchain
from tests.conftest import HEADS
from toolchain.bundle import open_bundle
from toolchain.checkpoint.model import find_model, load_model
from toolchain.cli import main
from toolchain.cli.show.compare import compared
from toolchain.data.metrics import OF_SEVERAL
from toolchain.diagnose import explain, verify
from toolchain.diagnose.probe import open_probe_graph
from toolchain.diagnose.tune import tune
from toolchain.errors import UsageError
from toolchain.evaluation.compare import SEVERAL
from toolchain.evaluation.results import find_results, load_predictions
from toolchain.evaluation.target import find_target
from toolchain.report.html import html
from toolchain.report.inputs import find_material
from toolchain.report.markdown import markdown
from toolchain.ship.push import push

TOPICS = ("joy", "fear", "hope")


@dataclass(frozen=True)
class Case:
    """A head: its model's outputs and configuration, its task, labels of rows, metric, and what a card says of it.

    `head` is what the bundle says, and None for the model's own.
    """

    labels: tuple[str, ...]
    task: str
    cells: list[Any]
    metric: str
    gives: str
    head: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


ONE_TEXT = 'text_columns = ["s"]\nlabel_column = "l"'

CASES = {
    "classes": Case(TOPICS, ONE_TEXT, [*TOPICS], "accuracy", "one of joy, fear, hope for each text"),
    "multilabel": Case(
        TOPICS,
        f'{ONE_TEXT}\nhead = "multilabel"\nthreshold = 0.4',
        [["joy"], ["fear", "hope"], [], [*TOPICS]],
        "micro_f1",
        "any of joy, fear, hope for each text",
        "multilabel",
        {"problem_type": "multi_label_classification"},
    ),
    "tokens": Case(
        HEADS["tokens"][1]["labels"],
        f'{ONE_TEXT}\nhead = "tokens"',
        [["B-joy", "I-joy", "O"], ["O", "B-fear"], ["O"]],
        "entity_f1",
        "the entities joy, fear for each text",
        "tokens",
    ),
    "embedding": Case(
        (),
        'text_columns = ["s", "second"]\nlabel_column = "l"',
        [0.1, 4.0, 2.5],
        "spearman_cosine",
        "a vector of 64 numbers for each text",
    ),
    "rerank": Case(
        ("score",),
        'text_columns = ["second", "s"]\nlabel_column = "l"\nquery_column = "q"\nhead = "rerank"',
        [1, 0, 2],
        "ndcg_at_10",
        "a score for each pair of texts",
        "rerank",
    ),
}


@dataclass(frozen=True)
class Made:
    """The bundle of a head, the record of its build, and the results of both graphs."""

    case: Case
    bundle: Path
    checkpoint: Path
    built: dict[str, Any]
    results: list[dict[str, Any]]


# Two heads whose logits have other shapes than a classifier's run by default.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("classes", "multilabel", "rerank")]
RUN = [*SLOW, "tokens", "embedding"]


@pytest.fixture(scope="module", params=RUN)
def made(
    request: pytest.FixtureRequest,
    tiny: ModuleType,
    exported_head: Callable[[str, Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    case, home = CASES[request.param], tmp_path_factory.mktemp(request.param)
    generator = np.random.default_rng(5)
    for split, count in (("train", 40), ("validation", 30)):
        texts = [" ".join(generator.choice(tiny.WORDS, generator.integers(3, 20))) for _ in range(count)]
        rows = [
            {
                "s": text,
                "second": texts[row - 1],
                "q": row % 6,
                "l": _cell(case, text, row),
            }
            for row, text in enumerate(texts)
        ]
        (home / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (home / "own.toml").write_text(f"{case.task}\n")
    if request.param in HEADS:
        checkpoint = exported_head(request.param, home / "bundle")
    else:
        checkpoint = tiny.make_checkpoint(home / "model", labels=case.labels, **case.config)
    built = toolchain.build(
        model=checkpoint,
        task=home / "own.toml",
        data=home,
        precision="int8",
        calib_method="minmax",
        calib_samples=20,
        max_drop=100,
        device="cpu",
        output=home / "bundle",
    )
    bundle = Path(built["bundle"])
    return Made(case, bundle, checkpoint, built, find_results([bundle]))


def _cell(case: Case, text: str, row: int) -> Any:
    """Return the label of a row; tags are repeated for all its words."""
    cell, words = case.cells[row % len(case.cells)], text.split()
    return [cell[at % len(cell)] for at in range(len(words))] if case.head == "tokens" else cell


def test_the_gate_compares_both_graphs_by_the_heads_metric(made: Made, capsys: Any) -> None:
    assert {(one["metric"], one["n"], one["verdict"]) for one in made.built["gate"]} == {
        (made.case.metric, 30, "passes")
    }
    assert len(made.built["gate"]) == 2
    assert made.built["deploy"]["verdict"] == "passes"
    compared({"comparisons": made.built["gate"]})
    assert (SEVERAL in " ".join(capsys.readouterr().out.split())) == (made.case.metric in OF_SEVERAL)


def test_predictions_of_fp32_are_those_of_pytorch(made: Made) -> None:
    result = toolchain.evaluate(made.bundle, file="model.onnx", device="cpu")
    found = load_predictions(result)
    assert result["agreement"]["label_agreement"] == (1 if made.case.labels and made.case.head != "rerank" else None)
    rows = [json.loads(line) for line in (made.bundle.parent / "validation.jsonl").read_text().splitlines()]
    for at in (0, 7, 29):
        texts = [rows[at][column] for column in tomllib.loads(made.case.task)["text_columns"]]
        expected = (_logits if made.case.labels else _vectors)(made.checkpoint, texts)
        own = found.logits[at]
        if made.case.head == "tokens":
            assert not own[len(expected) :].any()  # padding
            own = own[: len(expected)]
        np.testing.assert_allclose(own, expected, atol=1e-4)
    again = toolchain.compare([result, result], max_drop=100)[0]
    assert (again["drop_points"], again["verdict"]) == (0, "passes")


def _logits(checkpoint: Path, texts: list[str]) -> Any:
    model, tokenizer = load_model(find_model(str(checkpoint))), find_model(str(checkpoint)).tokenizer
    return model(**tokenizer(*texts, return_tensors="pt")).logits.detach().numpy()[0]


def _vectors(checkpoint: Path, texts: list[str]) -> Any:
    """Return the normalised mean of all tokens of each text, by transformers and numpy."""
    model, tokenizer = AutoModel.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    tokens = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state.detach().numpy()[0] for text in texts]
    return np.array([one.mean(axis=0) / np.linalg.norm(one.mean(axis=0)) for one in tokens])


def test_verify_explain_and_report_take_it(made: Made) -> None:
    for file in ("model.int8.onnx", "model.int8.cpu.onnx"):
        assert verify.verify(open_probe_graph(made.bundle, {"file": file, "device": "cpu"}))["passed"]
    assert (
        explain.explain(open_probe_graph(made.bundle, {"file": "model.int8.onnx"}))["share_of_macs"]["tensorrt"] > 0.5
    )
    material = find_material([made.bundle])
    page = html(material)
    assert (SEVERAL in page) == (made.case.metric in OF_SEVERAL)
    assert made.case.head == "rerank" or all(label.split("-")[-1] in page for label in made.case.labels)
    assert made.case.metric in page
    assert made.case.metric in markdown(material.results)


def test_tune_measures_what_the_int8_graph_loses(made: Made) -> None:
    """The set that excludes nothing is the bundle's graph before its float16, on the 20 rows without calibration."""
    found = tune({"budget": 2, "max_drop": 1e9}, bundle=made.bundle, tell=lambda line: None)
    assert (found["enough"], found["keep"], found["rows"]) == (True, [], 20)
    (everything,) = (one for one in found["sets"] if not one["keep"])
    resolved = find_target({"backend": "ort"}, made.bundle).resolved
    texts = resolved.train_rows.without(resolved.calibration_rows.text_digests).texts
    assert len(texts) == 20
    both = []
    for file in ("model.onnx", "model.int8.onnx"):
        with toolchain.load(made.bundle, file=file, device="cpu") as one:
            both.append(one.logits(resolved.head.sequences(texts)))
    # Scales in float16 round some activations to other levels, which shows where 20 rows have one logit each.
    assert everything["rms"] == pytest.approx(np.sqrt(np.square(both[0] - both[1]).mean()), rel=0.5)


def test_fp16_gives_nearly_what_fp32_does(made: Made, tmp_path: Path) -> None:
    target = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))
    folder = made.bundle.parent
    given = {"task": folder / "own.toml", "data": folder, "precision": "fp16", "max_drop": 100}
    built = toolchain.build(model=made.checkpoint, **given, device="cpu", output=target)
    assert "export" in built["skipped"]
    assert [abs(one["drop_points"]) < 2 for one in built["gate"]] == [True, True]
    result = toolchain.evaluate(target, file="model.fp16.onnx", device="cpu", halves=True)
    assert 0 < result["agreement"]["max_abs_logit_difference"] < 0.02


def test_predict_gives_the_answers_of_python(made: Made, tmp_path: Path) -> None:
    with toolchain.load(made.bundle, device="cpu") as one:
        texts = [("a good film", "not good")[: one.head.texts_per_row]] * 2
        texts = [text for pair in texts for text in one.head.sequences([pair])]
        expected = one([text if len(text) > 1 else text[0] for text in texts])
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(dict(zip("ab", text, strict=False))) for text in texts))
    columns = ",".join("ab"[: len(texts[0])])
    command = ["predict", str(made.bundle), "--data", str(tmp_path / "in.jsonl"), "--text-column", columns]
    assert main([*command, "--device", "cpu", "-o", str(tmp_path / "out.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for row, answer, text in zip(rows, expected, texts, strict=True):
        assert row == {**dict(zip(("text", "text_pair"), text, strict=False)), **json.loads(json.dumps(answer))}


def test_the_card_on_a_hub_says_what_it_gives(made: Made) -> None:
    push(made.bundle, "someone/tiny", output=made.bundle.parent / "pushed")
    assert f"It gives {made.case.gives}." in (made.bundle.parent / "pushed/README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("made", ["classes", "multilabel"], indirect=True)
def test_answers_are_those_of_the_saved_predictions(made: Made) -> None:
    rows = [json.loads(line)["s"] for line in (made.bundle.parent / "validation.jsonl").read_text().splitlines()]
    result = next(one for one in made.results if one["artefact"]["file"] == "model.int8.cpu.onnx")
    predicted = load_predictions(result).predicted
    with toolchain.load(made.bundle, device="cpu") as classifier:
        answers, best = classifier(rows), classifier(rows[0], top_k=None)
        shown = [classifier.head.shown(row) for row in predicted]
    assert [one["label"] for one in best] != []
    for answer, expected in zip(answers, shown, strict=True):
        labels = answer["labels"] if "labels" in answer else [answer["label"]]
        assert sorted(labels) == sorted(expected.split(", ") if expected != "-" else [])


def test_the_bundle_says_what_it_is(made: Made) -> None:
    task = open_bundle(made.bundle).manifest["task"]
    assert (task["primary"], task.get("head")) == (made.case.metric, made.case.head)
    several = made.case.metric in OF_SEVERAL
    for result in made.results:
        assert ("per_label" in result) == ("per_label" in result["agreement"]) == several


@pytest.mark.slow
@pytest.mark.parametrize("made", ["multilabel"], indirect=True)
def test_another_threshold_gives_other_labels(made: Made) -> None:
    with toolchain.load(made.bundle, device="cpu", threshold=0.9999) as strict:
        assert strict("a good film")[0]["labels"] == []


@pytest.mark.slow  # tests/heads/test_demo.py has the same on a trained model
@pytest.mark.parametrize("made", ["tokens"], indirect=True)
def test_entities_are_those_of_transformers_pipeline(made: Made) -> None:
    rows = [json.loads(line)["s"] for line in (made.bundle.parent / "train.jsonl").read_text().splitlines()]
    texts = [f"{text}, {text[::-1]}." for text in rows] * 5  # 200, with words of several tokens and punctuation
    pipe = pipeline("token-classification", str(made.checkpoint), aggregation_strategy="first", device="cpu")
    with toolchain.load(made.bundle, file="model.onnx", device="cpu") as tagger:
        answers = tagger(texts)
    count = 0
    for answer, expected in zip(answers, pipe(texts), strict=True):
        found = [(one["label"], one["start"], one["end"]) for one in answer["entities"]]
        assert found == [(one["entity_group"], one["start"], one["end"]) for one in expected]
        scores = [one["score"] for one in expected]
        np.testing.assert_allclose([one["score"] for one in answer["entities"]], scores, atol=1e-5)
        count += len(found)
    assert count > 200
    graph = open_bundle(made.bundle).manifest["steps"]["quantize"]
    assert "first_token" not in json.dumps(graph) or '"first_token": 0' in json.dumps(graph)


@pytest.mark.parametrize("made", ["embedding"], indirect=True)
def test_vectors_are_those_of_the_saved_predictions(made: Made) -> None:
    rows = [json.loads(line) for line in (made.bundle.parent / "validation.jsonl").read_text().splitlines()]
    result = next(one for one in made.results if one["artefact"]["file"] == "model.int8.cpu.onnx")
    found = load_predictions(result)
    with toolchain.load(made.bundle, device="cpu") as embedder:
        first, second = ([one["embedding"] for one in embedder([row[key] for row in rows])] for key in ("s", "second"))
        with pytest.raises(UsageError, match="top_k=2: an embedding model has no labels"):
            embedder(rows[0]["s"], top_k=2)
    np.testing.assert_allclose(np.stack([first, second], axis=1), found.logits, atol=1e-6)
    np.testing.assert_allclose(found.predicted, (np.array(first) * second).sum(axis=1), atol=1e-6)
    assert 0.9 < result["agreement"]["cosine_min"] <= result["agreement"]["cosine_p01"] < 1
    assert result["metrics"]["spearman_cosine"] == pytest.approx(spearmanr(found.predicted, found.references).statistic)
    assert result["tokens"]["real"] == open_rows(made.bundle, rows)


def open_rows(bundle: Path, rows: list[dict[str, Any]]) -> int:
    """Return the number of tokens of both texts of all rows, without truncation."""
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    return sum(len(tokenizer(row[key])["input_ids"]) for row in rows for key in ("s", "second"))


@pytest.mark.slow
@pytest.mark.parametrize("made", ["embedding"], indirect=True)
def test_another_pooling_is_exported_again(made: Made, tmp_path: Path) -> None:
    """The files of weights and of the tokenizer are the same."""
    other, target = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in (made.checkpoint, made.bundle))
    (other / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')
    given = {"task": made.bundle.parent / "own.toml", "data": made.bundle.parent, "precision": "fp32"}
    built = toolchain.build(model=other, **given, device="cpu", output=target)
    assert "export" in built["done"]
    with toolchain.load(target, device="cpu") as embedder:
        (found,) = embedder(["a good film"])
    model, tokenizer = AutoModel.from_pretrained(other), AutoTokenizer.from_pretrained(other)
    first = model(**tokenizer("a good film", return_tensors="pt")).last_hidden_state.detach().numpy()[0, 0]
    np.testing.assert_allclose(found["embedding"], first / np.linalg.norm(first), atol=1e-4)
