"""A backend, a range method and a step are added by one line in one table, as CONTRIBUTING.md says."""

import sys
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest

from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.bundle.steps import STEPS, Step
from toolchain.errors import UsageError
from toolchain.int8.range_methods import Histogram
from toolchain.recipe import Recipe
from toolchain.recipe.tables import BACKENDS, METHODS, Backend
from toolchain.runtimes import open_runtime
from toolchain.workflow import evaluate


@pytest.fixture
def own(monkeypatch):
    """A module as a contributor writes it: a runtime that runs ONNX Runtime, and a method that halves the range."""
    module = ModuleType("own_module")

    @contextmanager
    def open_own(model, **choices):
        with open_runtime("ort", model, **choices) as infer:
            yield infer

    module.open_own = open_own
    module.half = lambda histogram: histogram.amax / 2
    monkeypatch.setitem(sys.modules, "own_module", module)


def test_a_backend_is_one_line(own, monkeypatch, demo_bundle):
    with pytest.raises(UsageError, match="--backend own: unknown"):
        Recipe(backend="own")
    monkeypatch.setitem(BACKENDS, "own", Backend("own_module:open_own", runs="graph"))
    result = evaluate({"backend": "own", "limit": 16}, bundle=demo_bundle, tell=lambda line: None)
    assert (result["backend"], result["device"], result["artefact"]["file"]) == ("own", "cpu", "model.onnx")
    assert result["agreement"]["max_abs_logit_difference"] < 1e-4


def test_a_range_method_is_one_line(own, monkeypatch):
    with pytest.raises(UsageError, match="--calib-method half: unknown"):
        Recipe(calib_method="half")
    monkeypatch.setitem(METHODS, "half", "own_module:half")
    assert Recipe(calib_method="half").calib_method == "half"
    histogram = Histogram()
    histogram.add(np.array([-4, 2], np.float32))
    assert histogram.range("half").amax == 2


def test_a_step_is_one_line(monkeypatch, tiny_distilbert, sentences, tmp_path, begun):
    def count(resolved, made):
        def run(folder):
            (folder / "size.txt").write_text(str((folder / "model.onnx").stat().st_size))
            return {"counted": "model.onnx"}

        return made.step("size", {"version": STEPS["size"].version, "graph": made.artefacts["model.onnx"]}, run)

    begun("fp32", tmp_path / "b")
    monkeypatch.setitem(STEPS, "size", Step(count, version=1, precisions=("fp32",)))
    recipe = Recipe(model=str(tiny_distilbert), data=str(sentences), precision="fp32", output=str(tmp_path / "b"))
    assert build(recipe, engine=False)["done"] == ["size"]
    assert open_bundle(tmp_path / "b").manifest["steps"]["size"]["files"] == ["size.txt"]
    assert build(recipe, engine=False)["up_to_date"]
