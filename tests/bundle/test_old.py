"""A bundle, its results and a comparison that the code of 2026-11-21 made are read as they were.

`old/bundle` is a random DistilBERT of one layer: `build --precision int8 --calib-method auto --calib-samples 20`, then
`eval` of both INT8 graphs on `old/validation.csv`, and `compare --json` of both results in `old/compare.json`.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from toolchain.bundle import open_bundle
from toolchain.diagnose.gate import compare_results
from toolchain.evaluation.results import find_results, load_predictions
from toolchain.int8.calibrate import read_calibration
from toolchain.recipe import Recipe
from toolchain.workflow import evaluate

OLD = Path(__file__).parent / "old"


@pytest.fixture
def bundle(tmp_path):
    return Path(shutil.copytree(OLD / "bundle", tmp_path / "bundle"))


def keys(record, prefix=""):
    """Return the keys of a record and of the records in it, as dotted names."""
    for name, value in record.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")


def test_its_digests_hold_and_its_ranges_are_read(bundle):
    manifest = open_bundle(bundle).manifest
    assert (manifest["schema"], manifest["precision"], manifest["max_length"]) == (1, "int8", 32)
    written = json.loads((bundle / "calibration.json").read_text())
    calibration = read_calibration(bundle / "calibration.json")
    assert {name: known.amax for name, known in calibration.ranges.items()} == {
        name: known["amax"] for name, known in written["ranges"].items()
    }
    assert calibration.about["method"] == manifest["calibration"]["method"] == written["trials"][0]["method"]


def test_it_is_evaluated_without_its_checkpoint_with_every_result_key_of_before(bundle):
    old = json.loads((bundle / "results/sst2-validation-ort-cpu-int8.json").read_text())
    choices = {"backend": "ort", "device": "cpu", "data": str(OLD)}
    for file in ("model.onnx", "model.int8.onnx"):
        new = evaluate({**choices, "file": file}, bundle=bundle, tell=lambda line: None)
        assert set(keys(old)) - set(keys(new)) == set()
        assert new["data_sha256"] == old["data_sha256"]
        logits = load_predictions(new).logits
        np.testing.assert_allclose(
            logits, load_predictions(old | {"file": str(bundle / "results/x.json")}).logits, atol=0.05
        )
    assert new["agreement"]["max_abs_logit_difference"] < 0.05


def test_its_results_are_compared_as_they_were(bundle):
    found = compare_results(sorted((bundle / "results").glob("*.json")), Recipe(), tell=lambda line: None)
    expected = json.loads((OLD / "compare.json").read_text())["comparisons"]
    shown = [{key: new[key] for key in old} for new, old in zip(found, expected, strict=True)]
    assert json.loads(json.dumps(shown)) == expected
    assert {result["variant"] for result in find_results([bundle])} == {"int8", "int8.cpu"}
