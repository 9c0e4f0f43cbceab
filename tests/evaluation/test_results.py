import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolchain.base.files import sha256_file
from toolchain.bundle.writer import open_writer
from toolchain.errors import InputError
from toolchain.evaluation.results import (
    find_results,
    load_predictions,
    load_result,
    read_predictions,
    save_predictions,
    save_result,
)
from toolchain.heads.predictions import Predictions

OLD = Path(__file__).parents[1] / "bundle/old/bundle/results/sst2-validation-ort-cpu-int8.json"
RESULT: dict[str, Any] = json.loads(OLD.read_text()) | {"artefact": {"file": "checkpoint", "sha256": "0"}}
LOGITS = np.array([[0.5, -1.0], [2.0, 3.0]], np.float32)
FOUND = Predictions(np.array([0, 1]), np.array([0, 1]), LOGITS)
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=5)


@settings(max_examples=30)
@given(hnp.arrays(np.float32, shapes, elements=st.floats(width=32)))
def test_predictions_survive(tmp_path_factory: pytest.TempPathFactory, logits: np.ndarray) -> None:
    file = tmp_path_factory.getbasetemp() / "logits.npz"
    save_predictions(file, Predictions(logits[:, 0], logits[:, -1], logits))
    found = read_predictions(file)
    assert found is not None
    assert np.array_equal(found.logits, logits, equal_nan=True)
    assert np.array_equal(found.references, logits[:, 0], equal_nan=True)
    assert np.array_equal(found.predicted, logits[:, -1], equal_nan=True)


def test_result_names_its_predictions_by_digest_and_they_have_row_ids(tmp_path: Path) -> None:
    kept = save_predictions(tmp_path / "results/sst2-ort.npz", FOUND)
    file = save_result(tmp_path / "results", "sst2-ort", {**RESULT, "predictions": kept})
    assert kept == {"file": "sst2-ort.npz", "sha256": sha256_file(file.with_name("sst2-ort.npz"))}
    assert np.array_equal(load_predictions(load_result(file)).logits, LOGITS)
    with np.load(file.with_name(kept["file"])) as arrays:
        assert arrays["ids"].tolist() == [0, 1]


def test_predictions_that_changed_are_refused(tmp_path: Path) -> None:
    kept = save_predictions(tmp_path / "a.npz", FOUND)
    file = save_result(tmp_path, "a", {**RESULT, "predictions": kept, "agreement": {}})
    save_predictions(tmp_path / "a.npz", Predictions(FOUND.references, FOUND.predicted, LOGITS + 1))
    with pytest.raises(InputError, match="missing or have changed"):
        load_predictions(load_result(file))
    with pytest.raises(InputError, match="missing or have changed"):
        load_predictions(load_result(file), of_reference=True)


@pytest.mark.parametrize("kept", [None, [1], {"file": "a.npz"}, {"sha256": 3}, "a.npz"])
def test_a_result_that_was_edited_is_refused(tmp_path: Path, kept: object) -> None:
    save_predictions(tmp_path / "a.npz", FOUND)
    for change in ({"predictions": kept}, {"agreement": kept}):
        file = save_result(tmp_path, "a", {**RESULT, **change})
        with pytest.raises(InputError, match=r"missing or have changed|broken: (predictions|agreement)"):
            load_predictions(load_result(file), of_reference="agreement" in change)


def test_predictions_that_cannot_be_written_leave_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    save_predictions(tmp_path / "a.npz", FOUND)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        save_predictions(tmp_path / "a.npz", Predictions(FOUND.references, FOUND.predicted, LOGITS + 1))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert np.array_equal(read_predictions(tmp_path / "a.npz").logits, LOGITS)


def test_predictions_that_are_missing_are_none(tmp_path: Path) -> None:
    assert read_predictions(tmp_path / "a.npz") is None


@pytest.mark.parametrize("keep", [0, 1, 30, -1, -40])
def test_logits_that_are_cut_off_are_none(tmp_path: Path, keep: int) -> None:
    save_predictions(tmp_path / "a.npz", FOUND)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:keep])
    assert read_predictions(tmp_path / "a.npz") is None


@settings(max_examples=50)
@given(st.binary())
def test_bytes_that_are_no_logits_are_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.npz"
    file.write_bytes(data)
    assert read_predictions(file) is None


def test_arrays_that_are_no_logits_are_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=LOGITS)
    np.save(tmp_path / "b.npy", LOGITS)
    assert read_predictions(tmp_path / "a.npz") is None
    assert read_predictions(tmp_path / "b.npy") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"r\.json: the result is not JSON: .* Give a result that `eval` wrote\.$"),
        ("[1]", r"r\.json: not a result of schema 1\. Give one"),
        ('{"schema": 1}', "not a result of schema 1"),
        ('{"schema": 2, "metrics": {}}', "not a result of schema 1"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_result(tmp_path / "r.json")


def test_a_missing_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"no\.json: the result cannot be read: No such file or directory\.",
    ):
        find_results([tmp_path / "no.json"])


def test_results_are_found_in_files_folders_and_bundles(tmp_path: Path) -> None:
    with open_writer(tmp_path / "bundle") as made:
        made.finish({})
    for name in ("one.json", "folder/three.json", "folder/two.json", "bundle/results/four.json"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(RESULT | {"name": file.stem}))
    found = find_results(tmp_path / name for name in ("one.json", "bundle", "folder"))
    assert [result["name"] for result in found] == ["one", "four", "three", "two"]


def test_a_folder_without_results_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r": there are no results here\. Make one: toolchain eval\.$"):
        find_results([tmp_path])


def test_results_of_an_artefact_that_was_rebuilt_are_left_out(tmp_path: Path) -> None:
    with open_writer(tmp_path / "b") as made:
        made.step("s", {}, lambda folder: {"bytes": (folder / "model.onnx").write_bytes(b"new")})
        made.finish({})
    current = sha256_file(tmp_path / "b/model.onnx")
    kept = (("old", "model.onnx", "0" * 64), ("gone", "model.fp16.onnx", current), ("new", "model.onnx", current))
    for name, file, digest in kept:
        result = RESULT | {"name": name, "artefact": {"file": file, "sha256": digest}}
        (tmp_path / "b/results").mkdir(exist_ok=True)
        (tmp_path / f"b/results/{name}.json").write_text(json.dumps(result))
    assert [result["name"] for result in find_results([tmp_path / "b"])] == ["new"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"energy": {**RESULT["energy"], "status": "free"}}, "energy.status is 'free'"),
        ({"metrics": []}, "metrics is []"),
        ({"n": "40"}, "n is '40'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    file = save_result(tmp_path, "a", {**RESULT, **change})
    with pytest.raises(InputError) as refused:
        load_result(file)
    assert str(refused.value) == f"{file}: the result is broken: {fault}. Evaluate again."


def test_texts_of_a_result_control_no_terminal(tmp_path: Path) -> None:
    file = save_result(tmp_path, "a", {**RESULT, "backend": "\x1b[2Jort"})
    assert load_result(file)["backend"] == "\\u001b[2Jort"


def test_predictions_of_somebody_else_are_none(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    kept = {"references": FOUND.references, "predictions": FOUND.predicted, "logits": LOGITS}
    np.savez(file, **kept)
    assert read_predictions(file) is not None
    np.savez_compressed(file, **kept)  # a few bytes of it could fill the memory
    assert read_predictions(file) is None
    os.mkfifo(tmp_path / "pipe.npz")
    assert read_predictions(tmp_path / "pipe.npz") is None
