"""The promises on real checkpoints and real GLUE data, where they are at hand."""

import pytest

from toolchain.bundle.build import build
from toolchain.recipe import Recipe
from toolchain.workflow import evaluate

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
            build(
                Recipe.make(
                    {
                        "model": str(shared(f"models/distilbert-l6-h384-{task}")),
                        "task": task,
                        "data": str(shared(f"glue/{task}")),
                        "output": str(target),
                        **changes,
                    }
                )
            )
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


@pytest.mark.slow
def test_sst2_int8_for_tensorrt_keeps_it_too(made):
    result = measure(made("sst2", precision="int8"), backend="ort", file="model.int8.onnx")
    assert result["metrics"]["accuracy"] >= 0.870


@pytest.mark.slow
def test_a_float16_checkpoint_runs_in_float32_on_torch(made):
    result = measure(made("sst2", precision="int8"), backend="torch")
    assert result["metrics"]["accuracy"] == pytest.approx(FP32["sst2"], abs=5e-5)


@pytest.mark.slow
def test_sst2_in_fp16_agrees(made):
    result = measure(made("sst2", precision="fp16"), backend="ort")
    assert result["agreement"]["label_agreement"] >= 0.999


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
@pytest.mark.slow
def test_pairs_and_regression_stay_within_three_points(made, task):
    bundle = made(task, precision="int8", calib_method="mse")
    primary = PRIMARY[task]
    assert measure(bundle, backend="ort")["metrics"][primary] >= FP32[task] - 0.03
    assert measure(bundle, backend="torch")["metrics"][primary] == pytest.approx(FP32[task], abs=1e-4)


@pytest.mark.parametrize(("task", "most"), [("sst2", 0.3), ("mrpc", 0.5), ("stsb", 0.5)])
@pytest.mark.slow
def test_a_chosen_int8_keeps_accuracy_with_nine_tenths_of_the_work_in_int8(made, task, most):
    """The graph for TensorRT, by `build --precision int8 --calib-method auto --max-drop 0.5` alone."""
    from toolchain.diagnose.explain import explain
    from toolchain.diagnose.probe import open_probe_graph

    bundle = made(task, precision="int8", calib_method="auto", max_drop=0.5)
    result = measure(bundle, backend="ort", file="model.int8.onnx")
    assert 100 * (FP32[task] - result["metrics"][PRIMARY[task]]) <= most + 0.01
    assert task == "stsb" or result["agreement"]["label_agreement"] >= 0.97
    assert explain(open_probe_graph(bundle, {"file": "model.int8.onnx"}))["share_of_macs"]["tensorrt"] >= 0.9


@pytest.mark.slow
def test_onnx_runtimes_own_int8_is_explained(made, shared, tmp_path):
    """Its quantize_static leaves MatMuls in float on this CPU, and entropy ranges of few rows clip."""
    import numpy as np
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    from toolchain.diagnose.explain import explain
    from toolchain.diagnose.probe import open_probe_graph

    probe = open_probe_graph(made("sst2", precision="int8"), {"file": "model.onnx"})

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([probe.tokens.batch(np.arange(start, start + 16), length=48) for start in (0, 16)])

        def get_next(self):
            return next(self.batches, None)

    types = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(
        probe.file,
        tmp_path / "q.onnx",
        Reader(),
        calibrate_method=CalibrationMethod.Entropy,
        extra_options={"ActivationSymmetric": True},
        **types,
    )
    found = explain(open_probe_graph(tmp_path / "q.onnx", {"model": str(shared("models/distilbert-l6-h384-sst2"))}))
    uncovered = [one["name"] for one in found["products"] if not one["on_this_cpu"]]
    assert len(uncovered) >= 12
    assert any(name.endswith("q_lin") for name in uncovered)
    assert found["clipped"]
    assert all(one["tensor"] and one["share"] > 0 for one in found["clipped"])
