"""The promises on real checkpoints and real GLUE data, where they are at hand."""

import pytest

from toolchain.build import build
from toolchain.pipeline import evaluate
from toolchain.recipe import Recipe

pytestmark = pytest.mark.shared
FP32 = {"sst2": 0.8853, "mrpc": 0.8750, "stsb": 0.8608}
PRIMARY = {"sst2": "accuracy", "mrpc": "f1", "stsb": "pearson"}


@pytest.fixture(scope="module")
def made(shared, tmp_path_factory):
    """Build once a task and return the bundle."""
    bundles = {}

    def make(task, **changes):
        key = (task, *changes.items())
        if key not in bundles:
            target = tmp_path_factory.mktemp(task) / "bundle"
            build(Recipe.make({"model": str(shared(f"models/distilbert-l6-h384-{task}")), "task": task,
                               "data": str(shared(f"glue/{task}")), "output": str(target), **changes}))  # fmt: skip
            bundles[key] = target
        return bundles[key]

    return make


def measure(bundle, **choices):
    return evaluate(choices, bundle=bundle, tell=lambda line: None)


def test_sst2_in_int8_keeps_its_accuracy(made):
    result = measure(made("sst2", precision="int8"), backend="ort")
    assert result["n"] == 872
    assert result["metrics"]["accuracy"] >= 0.870
    assert result["agreement"]["label_agreement"] >= 0.95


def test_sst2_int8_for_tensorrt_keeps_it_too(made):
    result = measure(made("sst2", precision="int8"), backend="ort", file="model.int8.onnx")
    assert result["metrics"]["accuracy"] >= 0.870


def test_a_float16_checkpoint_runs_in_float32_on_torch(made):
    result = measure(made("sst2", precision="int8"), backend="torch")
    assert result["metrics"]["accuracy"] == pytest.approx(FP32["sst2"], abs=5e-5)


def test_sst2_in_fp16_agrees(made):
    result = measure(made("sst2", precision="fp16"), backend="ort")
    assert result["agreement"]["label_agreement"] >= 0.999


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
def test_pairs_and_regression_stay_within_three_points(made, task):
    bundle = made(task, precision="int8", calib_method="mse")
    primary = PRIMARY[task]
    assert measure(bundle, backend="ort")["metrics"][primary] >= FP32[task] - 0.03
    assert measure(bundle, backend="torch")["metrics"][primary] == pytest.approx(FP32[task], abs=1e-4)
