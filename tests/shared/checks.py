"""What real checkpoints must keep, for each task; each task has a file, so that workers share them."""

import pytest

from toolchain.diagnose.explain import explain
from toolchain.diagnose.probe import open_probe_graph
from toolchain.workflow import evaluate

FP32 = {"sst2": 0.8853, "mrpc": 0.8750, "stsb": 0.8608}
PRIMARY = {"sst2": "accuracy", "mrpc": "f1", "stsb": "pearson"}


def measure(bundle, **choices):
    return evaluate(choices, bundle=bundle, tell=lambda line: None)


def check_mse(made, task):
    """INT8 by `mse` stays within three points, and FP32 has the known figure."""
    bundle = made(task, precision="int8", calib_method="mse")
    assert measure(bundle, backend="ort")["metrics"][PRIMARY[task]] >= FP32[task] - 0.03
    assert measure(bundle, backend="torch")["metrics"][PRIMARY[task]] == pytest.approx(FP32[task], abs=1e-4)


def check_chosen(made, task, most):
    """The graph for TensorRT, by `build --precision int8 --calib-method auto --max-drop 0.5` alone."""
    bundle = made(task, precision="int8", calib_method="auto", max_drop=0.5)
    result = measure(bundle, backend="ort", file="model.int8.onnx")
    assert 100 * (FP32[task] - result["metrics"][PRIMARY[task]]) <= most + 0.01
    assert task == "stsb" or result["agreement"]["label_agreement"] >= 0.97
    assert explain(open_probe_graph(bundle, {"file": "model.int8.onnx"}))["share_of_macs"]["tensorrt"] >= 0.9
