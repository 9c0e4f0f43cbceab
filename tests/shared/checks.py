"""What real checkpoints must keep, for each task; each task has a file, so that workers share them."""

import numpy as np
import pytest

from toolchain.data.labels import read_labels
from toolchain.diagnose.explain import explain
from toolchain.diagnose.probe import open_probe_graph
from toolchain.evaluation.target import find_target
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run_texts
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


def check_halves(made, task, precision, **changes):
    """In real halves every validation row is finite, and decided as ONNX Runtime decides it in float32."""
    target = find_target({"halves": True}, made(task, precision=precision, **changes))
    rows, logits = target.resolved.rows("validation"), []
    for halves in (True, False):
        with open_runtime("ort", target.model, device="cpu", halves=halves) as infer:
            logits.append(run_texts(infer, target.resolved.encode, rows.texts).logits)
    assert np.isfinite(logits[0]).all()
    if logits[0].shape[1] > 1:
        assert (logits[0].argmax(axis=1) == logits[1].argmax(axis=1)).mean() >= 0.99
        return
    references = read_labels(rows, target.resolved.task, target.resolved.source.labels)
    found, expected = (100 * np.corrcoef(one[:, 0], references)[0, 1] for one in logits)
    assert found == pytest.approx(expected, abs=0.1)
