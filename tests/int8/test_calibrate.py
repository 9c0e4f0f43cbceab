"""Calibration reads real tokens only, and calibration.json survives the disk and states the graph's scales."""

import json

import numpy as np
import pytest

from toolchain import graph
from toolchain.base.tensors import Range
from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import InputError
from toolchain.graph.fp16 import to_half
from toolchain.graph.gemms import calibrated_tensors, is_probabilities
from toolchain.int8 import calibrate as calibration
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.runtimes.ort import open_session


def test_ranges_are_those_of_each_row_alone(exported, tokens_of):
    """Batched with others or not, minmax over unpadded rows is the same number."""
    tokens = tokens_of("distilbert", 30)
    ranges = calibration.calibrate(graph.load(exported["distilbert"]), tokens, method="minmax")
    model = graph.load(exported["distilbert"])
    names = calibrated_tensors(model)
    session = open_session(graph.with_outputs(model, names))
    alone = [session.run(names, tokens.batch(np.array([row]))) for row in range(len(tokens))]
    for index, name in enumerate(names):
        expected = max(np.abs(values[index]).max() for values in alone)
        assert ranges[name].amax == pytest.approx(expected, rel=1e-4)


def test_probabilities_need_no_range_and_every_other_input_does(exported):
    names = calibrated_tensors(graph.load(exported["distilbert"]))
    assert len(names) == 2 * 7  # of each layer: input, q, k, v, context, both inputs of the feed-forward layers
    assert not [name for name in names if "softmax" in name]


def test_calibration_is_deterministic(exported, tokens_of):
    first, second = (
        calibration.calibrate(graph.load(exported["bert"]), tokens_of("bert", 20), method="entropy") for _ in range(2)
    )
    assert first == second


def test_no_rows_are_refused(exported):
    empty = Tokens({"input_ids": [], "attention_mask": []}, {"input_ids": 0, "attention_mask": 0})
    with pytest.raises(InputError, match="no rows"):
        calibration.calibrate(graph.load(exported["distilbert"]), empty, method="entropy")


def test_ranges_survive_the_disk(tmp_path):
    ranges = {"x": Range(1.5, -1.5, 1.25)}
    written = calibration.Calibration(ranges, {"norm": [0, -2]}, {"method": "mse", "samples": 3})
    calibration.write_calibration(tmp_path, written)
    assert calibration.read_calibration(tmp_path / "calibration.json") == written


def test_a_file_without_scales_is_read(tmp_path):
    """Versions before the key `scale` wrote such files."""
    (tmp_path / "calibration.json").write_text(ONE % 2)
    assert calibration.read_calibration(tmp_path / "calibration.json").ranges == {"x": Range(2, 0, 1)}


def test_the_scale_in_the_file_is_the_scale_in_the_graph_for_tensorrt(exported, tokens_of, tmp_path):
    """Calibration rounds each scale as the graph does, and keeps the measured amax beside it."""
    ranges = calibration.calibrate(graph.load(exported["bert"]), tokens_of("bert", 20), method="entropy")
    calibration.write_calibration(tmp_path, calibration.Calibration(ranges, {}, {"method": "entropy"}))
    stated = json.loads((tmp_path / "calibration.json").read_text())["ranges"]
    model = graph.load(exported["bert"])
    quantize(model, ranges, TENSORRT)
    to_half(model)
    graph.save(model, tmp_path / "model.int8.onnx")
    found = {}
    for node in graph.nodes(graph.load(tmp_path / "model.int8.onnx"), "QuantizeLinear"):
        if not is_probabilities(node.inputs[0]):
            found[node.inputs[0].name.removesuffix(".fp16")] = float(graph.constant(node.inputs[1]))
    assert found == {name: entry["scale"] for name, entry in stated.items()}
    assert {name: entry["amax"] for name, entry in stated.items()} == {name: one.amax for name, one in ranges.items()}
    assert any(entry["scale"] != np.float32(entry["amax"] / 127) for entry in stated.values())


ONE = '{"smoothing": {}, "ranges": {"x": {"amax": %s, "min": 0, "max": 1}}}'


@pytest.mark.parametrize("amax", ["NaN", "Infinity", "0", "-1", '"wide"', "null", "1e999", "1e-44", "1e308"])
def test_a_range_that_is_not_finite_and_above_zero_is_refused(tmp_path, amax):
    (tmp_path / "calibration.json").write_text(ONE % amax)
    with pytest.raises(InputError, match="range of x is"):
        calibration.read_calibration(tmp_path / "calibration.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"smoothing": {}, "ranges": {"x": {"amax": 1}}}',
        '{"smoothing": {}, "ranges": 3}',
        '{"keep": 5, "ranges": {}}',
        '{"row_sha256": [5], "ranges": {}}',
        '{"smoothing": {"n": "0 x"}, "ranges": {}}',
        '{"smoothing": {"n": "0 99"}, "ranges": {}}',
    ],
)
def test_a_broken_file_is_refused(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InputError, match="alibrat"):
        calibration.read_calibration(tmp_path / "calibration.json")
