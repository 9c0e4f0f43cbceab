"""Regression: STS-B on the real checkpoint and its GLUE data, where they are at hand."""

import pytest

from tests.shared.checks import FP32, SMOOTH, check_chosen, check_fixed, check_halves, check_openvino

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def test_int8_stays_within_three_points(made, in_pytorch):
    check_fixed(made, in_pytorch, "stsb")


def test_int8_on_openvino_does_too(made, cache_home):
    check_openvino(made, "stsb", FP32["stsb"] - 0.03, calib_method="mse")


def test_a_chosen_int8_keeps_accuracy_with_nine_tenths_of_the_work_in_int8(made, in_pytorch):
    check_chosen(made, in_pytorch, "stsb", most=0.5, smooth=SMOOTH)  # test_sst2.py chooses the smoothing too


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_row_is_finite_and_decided_alike_in_real_halves(made, precision):
    changes = {"calib_method": "mse"} if precision == "int8" else {}
    check_halves(made("stsb", precision=precision, **changes), precision)
