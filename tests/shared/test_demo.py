"""The built-in model on its data, in real halves."""

import pytest

from tests.shared.checks import check_halves

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_row_is_finite_and_decided_alike_in_real_halves(made, precision):
    check_halves(made("demo", precision=precision), precision)
