"""The part of the page that decides: the gate's answer, the drop, classes and changed rows, by saved predictions."""

import json

import numpy as np
import pytest

from tests.head_of import head_of
from toolchain.evaluation.results import save_predictions
from toolchain.heads.predictions import Predictions
from toolchain.report.decision import detail_of, drop_of, reference_cell
from toolchain.report.html import html
from toolchain.report.inputs import Material, find_material
from toolchain.workflow import evaluation

NAMES = ["negative", "neutral", "positive"]
REFERENCES = np.array([0, 0, 1, 1, 2, 2, 2, 0])
FP32 = np.array([0, 0, 1, 2, 2, 2, 2, 0])
INT8 = np.array([0, 1, 1, 1, 2, 2, 0, 0])
TEXTS = [(f"text {row}",) for row in range(8)]


@pytest.fixture
def saved(result, tmp_path):
    """A result with the predictions of both, in a bundle's results."""
    both = [Predictions(REFERENCES, labels, np.eye(3, dtype=np.float32)[labels]) for labels in (INT8, FP32)]
    folder = tmp_path / "bundle/results"
    result |= {"n": 8, "labels": NAMES, "file": str(folder / "ort.json"), "metrics": {"accuracy": 0.75}}
    result["predictions"] = save_predictions(folder / "ort.npz", both[0])
    result["agreement"] |= {
        "predictions": save_predictions(folder / "reference.npz", both[1]),
        "changed_rows": evaluation.changed_rows(*both, TEXTS, head_of(*NAMES)),
    }
    (folder / "ort.json").write_text(json.dumps(result))
    return result


def test_changed_rows_have_their_texts_and_labels(saved):
    assert saved["agreement"]["changed_rows"] == [
        {"row": 1, "text": "text 1", "label": "negative", "reference": "negative", "predicted": "neutral"},
        {"row": 3, "text": "text 3", "label": "neutral", "reference": "positive", "predicted": "neutral"},
        {"row": 6, "text": "text 6", "label": "positive", "reference": "positive", "predicted": "negative"},
    ]
    assert evaluation.shorten("x" * 400) == "x" * 299 + "…"


def test_classes_are_those_of_a_count_by_hand(saved):
    detail = detail_of("ort int8.cpu", saved)
    assert [(one.name, one.rows, [number.value for number in one.confusion]) for one in detail.classes] == [
        ("negative", 3, [2, 1, 0]),
        ("neutral", 2, [0, 2, 0]),
        ("positive", 3, [1, 0, 2]),
    ]
    before, _, after = detail.classes[1].cells[0].parts  # precision of neutral: 1 of 1, then 2 of 3
    assert (before.value, after.value) == (1.0, pytest.approx(2 / 3))
    assert detail.changed_in_all == 3


def test_the_drop_and_the_reference_are_those_of_the_saved_predictions(saved):
    drop = drop_of("ort int8.cpu", saved, [])
    assert drop.drop.parts[0].value == pytest.approx(12.5)  # 7 of 8, then 6 of 8
    assert [drop.changed.parts[at].value for at in (0, 2, 4)] == [3, 2, 1]
    assert reference_cell(saved).parts[0].value == pytest.approx(7 / 8)


def test_the_page_has_the_answer_of_the_gate_and_a_row_of_the_reference(saved, tmp_path):
    bundle = tmp_path / "bundle"
    comparison = {
        "metric": "accuracy",
        "n": 8,
        "task": saved["task"],
        "split": saved["split"],
        "data_sha256": saved["data_sha256"],
        "drop_points": 12.5,
        "bounds_points": [-3.0, None],
        "confidence": 0.95,
        "flips": {"lost": 2, "gained": 1, "changed": 3},
        "max_drop_points": 1.0,
        "rows_to_tell": None,
        "verdict": "fails",
    }
    one = {"backend": "ort", "device": "cpu", "verdict": "fails", "bytes": 1, "comparison": comparison}
    gate = {
        "file": None,
        "verdict": "fails",
        "next": "toolchain tune bundle",
        "candidates": [one | saved["artefact"]],
    }
    (bundle / "results/gate").mkdir()
    (bundle / "results/gate/gate.json").write_text(json.dumps(gate))
    page = html(find_material([bundle / "results"]))
    assert "Do not deploy this bundle yet." in page
    assert "toolchain tune bundle" in page
    assert "[-3.00,\xa0?]" in page
    assert '<th role="rowheader" scope="row">torch-fp32</th>' in page
    assert "May it be deployed?" not in html(Material([saved]))
    (bundle / "results/ort.json").write_text(json.dumps(saved | {"halves": True}))  # not what the gate judged
    assert "[-3.00,\xa0?]" not in html(find_material([bundle / "results"]))
    for change in ({"task": "mnli"}, {"data_sha256": "of other rows"}):
        (bundle / "results/ort.json").write_text(json.dumps(saved | change))
        assert "May it be deployed?" not in html(find_material([bundle / "results"]))


def test_an_answer_about_an_artefact_that_was_built_again_is_left_out(saved, tmp_path, caplog):
    results = tmp_path / "bundle/results"
    comparison = {"task": saved["task"], "data_sha256": saved["data_sha256"]}
    one = {**saved["artefact"], "comparison": comparison}
    (results / "gate").mkdir()
    old = {key: value for key, value in one.items() if key != "sha256"}  # of an earlier version
    for candidate, count in ((one, 1), (one | {"sha256": "of the old graph"}, 0), (old, 0)):
        (results / "gate/gate.json").write_text(json.dumps({"candidates": [candidate]}))
        assert len(find_material([results]).deployments) == count
    assert (
        "gate.json: left out, because a file that the gate judged has changed. Run the gate again: toolchain build"
        in caplog.text
    )


def test_a_busy_machine_is_marked(result):
    assert "machine was busy" not in html(Material([result]))
    assert "machine was busy" in html(Material([result | {"contention": {"busy": True}}]))
