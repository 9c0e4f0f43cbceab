"""Every head on the whole path: build with a gate, evaluate, verify, explain, report, Python, files."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import toolchain
from toolchain.bundle import open_bundle
from toolchain.checkpoint.model import find_model, load_model
from toolchain.diagnose import explain, verify
from toolchain.diagnose.probe import open_probe_graph
from toolchain.evaluation.results import find_results, load_predictions
from toolchain.report.html import html
from toolchain.report.inputs import find_material
from toolchain.report.markdown import markdown
from toolchain.ship.push import push

TOPICS = ("joy", "fear", "hope")


@dataclass(frozen=True)
class Case:
    """A head: its model's outputs and configuration, its task, and a label of a row of its data."""

    labels: tuple[str, ...]
    task: str
    cells: list[Any]
    metric: str
    config: dict[str, Any] = field(default_factory=dict)


CASES = {
    "classes": Case(TOPICS, 'label_column = "l"', [*TOPICS], "accuracy"),
    "multilabel": Case(
        TOPICS,
        'head = "multilabel"\nlabel_column = "l"\nthreshold = 0.4',
        [["joy"], ["fear", "hope"], [], [*TOPICS]],
        "micro_f1",
        {"problem_type": "multi_label_classification"},
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


@pytest.fixture(scope="module", params=[pytest.param("classes", marks=pytest.mark.slow), "multilabel"])
def made(request: pytest.FixtureRequest, tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Made:
    case, home = CASES[request.param], tmp_path_factory.mktemp(request.param)
    generator = np.random.default_rng(5)
    for split, count in (("train", 40), ("validation", 30)):
        texts = [" ".join(generator.choice(tiny.WORDS, generator.integers(3, 20))) for _ in range(count)]
        rows = [{"s": text, "l": case.cells[row % len(case.cells)]} for row, text in enumerate(texts)]
        (home / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (home / "own.toml").write_text(f'text_columns = ["s"]\n{case.task}\n')
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


def test_the_gate_compares_both_graphs_by_the_heads_metric(made: Made) -> None:
    assert {(one["metric"], one["n"], one["verdict"]) for one in made.built["gate"]} == {
        (made.case.metric, 30, "passes")
    }
    assert len(made.built["gate"]) == 2
    assert made.built["deploy"]["verdict"] == "passes"


def test_predictions_of_fp32_are_those_of_pytorch(made: Made) -> None:
    result = toolchain.evaluate(made.bundle, file="model.onnx", device="cpu")
    found = load_predictions(result)
    assert result["agreement"]["label_agreement"] == 1
    model, tokenizer = load_model(find_model(str(made.checkpoint))), find_model(str(made.checkpoint)).tokenizer
    rows = [json.loads(line) for line in (made.bundle.parent / "validation.jsonl").read_text().splitlines()]
    for at in (0, 7, 29):
        logits = model(**tokenizer(rows[at]["s"], return_tensors="pt")).logits.detach().numpy()
        np.testing.assert_allclose(found.logits[at], logits[0], atol=1e-4)
    again = toolchain.compare([result, result], max_drop=100)[0]
    assert (again["drop_points"], again["verdict"]) == (0, "passes")


def test_verify_explain_and_report_take_it(made: Made) -> None:
    for file in ("model.int8.onnx", "model.int8.cpu.onnx"):
        assert verify.verify(open_probe_graph(made.bundle, {"file": file, "device": "cpu"}))["passed"]
    assert (
        explain.explain(open_probe_graph(made.bundle, {"file": "model.int8.onnx"}))["share_of_macs"]["tensorrt"] > 0.5
    )
    material = find_material([made.bundle])
    page = html(material)
    assert all(label in page for label in made.case.labels)
    assert made.case.metric in page
    assert made.case.metric in markdown(material.results)


def test_the_card_on_a_hub_says_what_it_gives(made: Made) -> None:
    push(made.bundle, "someone/tiny", output=made.bundle.parent / "pushed")
    how = "any of" if made.case.metric == "micro_f1" else "one of"
    assert (
        f"It gives {how} {', '.join(made.case.labels)} for each text."
        in (made.bundle.parent / "pushed/README.md").read_text()
    )


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
    assert (task["primary"], task.get("head")) == (made.case.metric, "multilabel" if "head" in made.case.task else None)
    several = made.case.metric == "micro_f1"
    for result in made.results:
        assert ("per_label" in result) == ("per_label" in result["agreement"]) == several


@pytest.mark.parametrize("made", ["multilabel"], indirect=True)
def test_another_threshold_gives_other_labels(made: Made) -> None:
    with toolchain.load(made.bundle, device="cpu", threshold=0.9999) as strict:
        assert strict("a good film")[0]["labels"] == []
