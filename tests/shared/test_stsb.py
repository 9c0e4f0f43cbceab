"""Regression: STS-B on the real checkpoint and its GLUE data, where they are at hand."""

import pytest

from tests.shared.checks import FP32, SMOOTH, check_chosen, check_fixed, check_halves, check_openvino, predictions

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def test_int8_stays_within_three_points(made, in_pytorch):
    check_fixed(made, in_pytorch, "stsb")


def test_int8_on_openvino_does_too(made, cache_home):
    check_openvino(made, "stsb", FP32["stsb"] - 0.03, calib_method="mse")


def test_a_chosen_int8_keeps_accuracy_with_nine_tenths_of_the_work_in_int8(made, in_pytorch):
    check_chosen(made, in_pytorch, "stsb", most=0.5, smooth=SMOOTH)  # test_sst2.py chooses the smoothing too


def test_fp16_is_finite_in_real_halves_and_decides_as_pytorch_does(made, in_pytorch):
    check_halves(made("stsb", precision="fp16"), "model.fp16.onnx", in_pytorch("stsb"))


def test_int8_is_finite_in_real_halves_and_decides_as_in_float32(made):
    bundle, file = made("stsb", precision="int8", calib_method="mse"), "model.int8.onnx"
    check_halves(bundle, file, predictions(bundle, file=file))
