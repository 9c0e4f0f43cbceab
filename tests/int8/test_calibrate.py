"""Calibration sees real tokens only, keeps no rows, and writes formats others read."""

import numpy as np
import onnxruntime
import pytest

from toolchain import graph
from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import InputError
from toolchain.int8 import calibrate as calibration
from toolchain.int8.quantize import calibrated_tensors
from toolchain.tensors import Range


def test_ranges_are_those_of_each_row_alone(exported, tokens_of):
    """Batched with others or not, minmax over unpadded rows is the same number."""
    tokens = tokens_of("distilbert", 30)
    ranges = calibration.calibrate(graph.load(exported["distilbert"]), tokens, method="minmax")
    model = graph.load(exported["distilbert"])
    names = calibrated_tensors(model)
    session = onnxruntime.InferenceSession(graph.with_outputs(model, names))
    alone = [session.run(names, tokens.batch(np.array([row]))) for row in range(len(tokens))]
    for index, name in enumerate(names):
        expected = max(np.abs(values[index]).max() for values in alone)
        assert ranges[name].amax == pytest.approx(expected, rel=1e-4)


def test_every_quantized_tensor_has_a_range_and_probabilities_need_none(exported):
    names = calibrated_tensors(graph.load(exported["distilbert"]))
    assert len(names) == 2 * 7  # input, q, k, v, context, feed-forward's two, a layer
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
    calibration.write_ranges(tmp_path, ranges, {"method": "mse", "samples": 3, "smoothing": {"norm": [0, -2]}})
    found, about = calibration.read_ranges(tmp_path / "calibration.json")
    assert (found, about["method"], about["smoothing"]) == (ranges, "mse", {"norm": [0, -2]})


ONE = '{"smoothing": {}, "ranges": {"x": {"amax": %s, "min": 0, "max": 1}}}'


@pytest.mark.parametrize("amax", ["NaN", "Infinity", "0", "-1", '"wide"', "null", "1e999", "1e-44", "1e308"])
def test_a_range_that_is_none_is_refused(tmp_path, amax):
    (tmp_path / "calibration.json").write_text(ONE % amax)
    with pytest.raises(InputError, match="range of x is"):
        calibration.read_ranges(tmp_path / "calibration.json")


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
        calibration.read_ranges(tmp_path / "calibration.json")
