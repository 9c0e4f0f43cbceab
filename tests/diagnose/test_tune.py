"""Tune: its recipe can be built, and a stopped search continues."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.cli import main
from toolchain.diagnose.tune import tune
from toolchain.errors import InputError
from toolchain.recipe import Recipe
from toolchain.workflow import evaluate


def quiet(line):
    pass


@pytest.fixture(scope="module")
def bundle(begun_regression, tmp_path_factory):
    """A regression, in which every error counts, with ranges that are far too small."""
    values = begun_regression(tmp_path_factory.mktemp("tuning") / "bundle")
    build(Recipe.make(values | {"precision": "int8", "calib_samples": 20, "calib_method": "percentile-60"}))
    return Path(values["output"])


def test_the_recipe_builds_the_set_that_was_found(bundle, capsys):
    digest = open_bundle(bundle).digest
    done = tune({"budget": 12, "max_drop": 0.01}, bundle=bundle, tell=quiet)
    assert open_bundle(bundle).digest == digest
    assert done["keep"]
    assert done["evaluations"] <= 13
    assert ElementTree.parse(done["files"]["plot"]).getroot().tag.endswith("svg")
    assert json.loads(Path(done["files"]["record"]).read_text())["keep"] == done["keep"]
    assert main(["build", done["files"]["recipe"], "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["quantize"]["views"]["model.int8.onnx"]["kept"] == done["keep"]
    assert built["skipped"][:1] == ["export"]
    with pytest.raises(InputError, match="rows were used for calibration"):
        evaluate({"split": "train", "backend": "ort"}, bundle=bundle, tell=quiet)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"evaluations": {}, "noise": 5}', '{"evaluations": {"a": 1}, "noise": []}']
)
def test_a_damaged_search_starts_again(bundle, text):
    done = tune({"budget": 4, "max_drop": 1e9, "seed": 7}, bundle=bundle, tell=quiet)
    file = max((bundle / "results/tune").glob("search-*.json"), key=lambda path: path.stat().st_mtime)
    file.write_text(text)
    assert tune({"budget": 4, "max_drop": 1e9, "seed": 7}, bundle=bundle, tell=quiet) == done


def test_a_stopped_search_continues(bundle):
    first = tune({"budget": 8, "max_drop": 0.01, "seed": 3}, bundle=bundle, tell=quiet)
    told = []
    again = tune({"budget": 8, "max_drop": 0.01, "seed": 3}, bundle=bundle, tell=told.append)
    assert again == first
    assert any(f"{first['evaluations']} graphs were already evaluated" in line for line in told)


def test_only_int8_can_be_tuned(begun, tmp_path):
    begun("fp32", tmp_path / "b")
    with pytest.raises(InputError, match="it is not in INT8"):
        tune({}, bundle=tmp_path / "b", tell=quiet)


def test_the_command_line(bundle, capsys):
    assert main(["tune", str(bundle), "--budget", "6", "--max-drop", "1e9"]) == 0
    shown = capsys.readouterr()
    assert "no GEMM needs to be excluded from INT8" in shown.out
    assert "at most 6 graphs" in shown.err
    assert main(["tune", str(bundle), "--budget", "1"]) == 2
