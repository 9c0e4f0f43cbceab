"""The built-in model on its data, in real halves."""

import pytest

from tests.shared.checks import check_halves, predictions

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_row_is_finite_and_decided_alike_in_real_halves(made, precision):
    bundle, file = made("demo", precision=precision), f"model.{precision}.onnx"
    check_halves(bundle, file, predictions(bundle, file=file))
