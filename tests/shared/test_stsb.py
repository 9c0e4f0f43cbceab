"""Regression: STS-B on the real checkpoint and its GLUE data, where they are at hand."""

import pytest

from tests.shared.checks import check_chosen, check_halves, check_mse

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def test_int8_stays_within_three_points(made):
    check_mse(made, "stsb")


def test_a_chosen_int8_keeps_accuracy_with_nine_tenths_of_the_work_in_int8(made):
    check_chosen(made, "stsb", most=0.5)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_row_is_finite_and_decided_alike_in_real_halves(made, precision):
    check_halves(made, "stsb", precision)
