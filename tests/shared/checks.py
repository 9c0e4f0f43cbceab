"""What real checkpoints must keep, for each task; each task has a file, so that workers share them.

Each check runs every validation row once, without the trials and timings of an evaluation.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest

from toolchain.data.metrics import METRICS
from toolchain.diagnose.explain import explain
from toolchain.diagnose.probe import open_probe_graph
from toolchain.evaluation.target import find_target
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run_texts

FP32 = {"sst2": 0.8853, "mrpc": 0.8750, "stsb": 0.8608}
PRIMARY = {"sst2": "accuracy", "mrpc": "f1", "stsb": "pearson"}

# SmoothQuant's alpha that `auto` chooses for these checkpoints. Where it is given, `auto` tries the range methods only.
SMOOTH = 0.85


@functools.cache
def predictions(bundle, **choices):
    """Return what a model of a bundle predicts for every validation row, computed once."""
    target = find_target(choices, bundle)
    head, rows = target.resolved.head, target.resolved.rows("validation")
    with open_runtime(target.backend, target.model, **target.choices) as infer:
        logits = run_texts(infer, target.encode, rows.texts).logits
    return head.predict(head.read(rows), logits)


def metric(found, task):
    """Return the primary metric of a task."""
    return METRICS[PRIMARY[task]](found.references, found.predicted)


def agreement(found, expected):
    """Return the share of rows with the same label."""
    return (found.predicted == expected.predicted).mean()


def check_fixed(made, in_pytorch, task):
    """INT8 by `mse` stays within three points, and FP32 has the known figure."""
    bundle = made(task, precision="int8", calib_method="mse")
    assert metric(predictions(bundle), task) >= FP32[task] - 0.03
    assert metric(in_pytorch(task), task) == pytest.approx(FP32[task], abs=1e-4)


def check_openvino(made, task, least, **changes):
    """INT8 on OpenVINO keeps the figure that it keeps on ONNX Runtime."""
    pytest.importorskip("openvino", reason="pip install 'encoder-toolchain[openvino]'")
    assert metric(predictions(made(task, precision="int8", **changes), backend="openvino"), task) >= least


def check_chosen(made, in_pytorch, task, most, **changes):
    """The graph for TensorRT, by `build --precision int8 --calib-method auto --max-drop 0.5` and `changes` alone."""
    bundle = made(task, precision="int8", calib_method="auto", max_drop=0.5, **changes)
    found = predictions(bundle, file="model.int8.onnx")
    assert 100 * (FP32[task] - metric(found, task)) <= most + 0.01
    assert task == "stsb" or agreement(found, in_pytorch(task)) >= 0.97
    probe = open_probe_graph(bundle, {"file": "model.int8.onnx"})
    few = replace(probe, tokens=probe.tokens.take(np.arange(8)))  # the share depends a little on the rows' lengths
    assert explain(few)["share_of_macs"]["tensorrt"] >= 0.9


def check_halves(bundle, file, expected, *, least=0.99):
    """In real halves every validation row is finite, and a share of `least` is decided as in `expected`."""
    found = predictions(bundle, file=file, halves=True)
    assert np.isfinite(found.logits).all()
    if found.logits.shape[1] > 1:
        assert agreement(found, expected) >= least
    else:
        scores = [100 * METRICS["pearson"](one.references, one.predicted) for one in (found, expected)]
        assert scores[0] == pytest.approx(scores[1], abs=0.1)
