"""Explanations name GEMMs in float, clipped tensors and noisy GEMMs, also in graphs of other tools."""

import json
import os
import shutil

import numpy as np
import pytest

from toolchain import graph
from toolchain.base.tensors import Range
from toolchain.cli import main
from toolchain.diagnose.explain import explain
from toolchain.diagnose.probe import open_probe_graph
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import CPU, TENSORRT, quantize


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, build_tiny):
    target = tmp_path_factory.mktemp("explain") / "bundle"
    build_tiny(target, smooth=0.5, keep="*.layer.0.ffn.lin2")
    return target


def test_excluded_gemms_and_the_head_are_not_in_integers(bundle):
    found = explain(open_probe_graph(bundle, {"file": "model.int8.onnx"}))
    out = {one["name"]: one["reason"] for one in found["products"] if not one["integers"]}
    assert set(out) == {"distilbert.transformer.layer.0.ffn.lin2", "pre_classifier", "classifier"}
    assert "without Q/DQ before it" in out["distilbert.transformer.layer.0.ffn.lin2"]
    assert "on purpose" in out["classifier"]
    assert 0.8 < found["share_of_macs"]["tensorrt"] == found["share_of_macs"]["integers"] < 0.95
    assert found["smoothing_muls"] == 6
    assert found["speed"]["measured"] > 0
    assert found["speed"]["predicted_best"] >= 1
    json.dumps(found, allow_nan=False)


def test_the_cpu_view_has_no_work_for_tensorrt(bundle):
    found = explain(open_probe_graph(bundle, {}))
    assert found["share_of_macs"]["tensorrt"] == 0
    assert found["share_of_macs"]["on_this_cpu"] == found["share_of_macs"]["integers"]
    assert "an integer operator of ONNX Runtime, which TensorRT lacks" in {one["reason"] for one in found["products"]}


def test_scales_are_those_of_the_graph_beside_the_measured_amax(bundle):
    found = explain(open_probe_graph(bundle, {"file": "model.int8.onnx"}))
    ranges = json.loads((bundle / "calibration.json").read_text())["ranges"]
    scales = {one["tensor"]: (one["amax"], one["scale"]) for one in found["scales"]}
    calibrated = {name: pair for name, pair in scales.items() if pair[0] is not None}
    assert len(calibrated) > 10
    assert calibrated == {name: (ranges[name]["amax"], ranges[name]["scale"]) for name in calibrated}
    assert {name for name in scales if name not in calibrated} == {name for name in scales if "softmax" in name}


def test_the_advice_for_fp32_is_to_build_int8(bundle):
    found = explain(open_probe_graph(bundle, {"file": "model.onnx"}))
    assert found["share_of_macs"]["integers"] == 0
    assert any("toolchain build --precision int8" in line for line in found["advice"])


def test_a_typed_graph_outside_its_bundle_is_compared_with_itself_in_float(bundle, tmp_path):
    """Its Q/DQ pairs read float32 in places and give float16."""
    shutil.copy(bundle / "model.int8.onnx", tmp_path / "alone.onnx")
    found = explain(open_probe_graph(tmp_path / "alone.onnx", {}))
    noisy = [one["snr_db"] for one in found["products"] if one["integers"]]
    assert noisy
    assert all(10 < snr < 80 for snr in noisy)


def test_a_clipped_tensor_and_its_noise_are_named(exported, tokens_of, tmp_path):
    model, tokens = graph.load(exported["distilbert"]), tokens_of("distilbert", 40)
    ranges = calibrate(graph.load(exported["distilbert"]), tokens, method="minmax")
    name = "distilbert.transformer.layer.1.ffn.lin2.input"
    ranges[name] = Range(ranges[name].amax / 20, ranges[name].low / 20, ranges[name].high / 20)
    quantize(model, ranges, TENSORRT)
    graph.save(model, tmp_path / "q.onnx")
    found = explain(open_probe_graph(tmp_path / "q.onnx", {}))
    worst = found["clipped"][0]
    assert worst["tensor"] == name
    assert worst["share"] > 0.05
    assert worst["reach"] > 2
    noisiest = min((one for one in found["products"] if one["snr_db"] is not None), key=lambda one: one["snr_db"])
    assert noisiest["name"] == "distilbert.transformer.layer.1.ffn.lin2"
    assert any(name in line for line in found["advice"])


@pytest.mark.parametrize("target", [TENSORRT, CPU], ids=lambda target: target.name)
def test_nothing_is_clipped_by_the_ranges_of_the_same_rows(exported, tokens_of, tmp_path, target):
    model = graph.load(exported["bert"])
    tokens = tokens_of("bert", 40)
    quantize(model, calibrate(graph.load(exported["bert"]), tokens, method="minmax"), target)
    graph.save(model, tmp_path / "q.onnx")
    probe = open_probe_graph(tmp_path / "q.onnx", {})
    found = explain(probe.__class__(**{**vars(probe), "tokens": tokens}))
    assert found["clipped"] == []


def test_onnx_runtimes_own_quantizer(exported, tokens_of, tmp_path):
    """Its int8 MatMuls that this CPU leaves in float, and tensors beyond the range of the few rows it saw."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    tokens = tokens_of("distilbert", 40)

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([tokens.batch(np.arange(4), length=40)])

        def get_next(self):
            return next(self.batches, None)

    types = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    file = tmp_path / "theirs.onnx"
    quantize_static(exported["distilbert"], file, Reader(), calibrate_method=CalibrationMethod.MinMax, **types)
    found = explain(open_probe_graph(file, {}))
    assert found["precision"] == "int8"
    assert len(found["products"]) == 18
    assert {one["reason"] for one in found["products"]} != {None}
    assert found["clipped"]
    assert all(one["tensor"] for one in found["clipped"])


def test_the_command_line(bundle, capsys):
    assert main(["explain", str(bundle)]) == 0
    shown = capsys.readouterr().out
    for text in ("work in integers", "Not in integers", "Largest error", "advice: "):
        assert text in shown
    assert main(["explain", str(bundle), "--file", "model.int8.onnx", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["share_of_macs"]["tensorrt"] > 0.8
    assert main(["explain", os.devnull]) == 1
