from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.base.tensors import Range, range_from_json
from toolchain.errors import InputError

positive = st.floats(1e-6, 1e6)


@given(positive)
def test_scale_maps_amax_to_127_and_its_negative_to_minus_127(amax: float) -> None:
    scale = Range(amax, -amax, amax).scale
    assert np.rint(np.array([amax, -amax]) / scale).tolist() == [127, -127]


@given(positive, positive)
def test_range_survives_json(amax: float, high: float) -> None:
    known = Range(amax, -amax, min(amax, high))
    assert range_from_json("x", known.to_json()) == known


def test_json_has_the_names_of_the_design() -> None:
    assert Range(2.0, -1.0, 2.0).to_json() == {"amax": 2.0, "min": -1.0, "max": 2.0}


@pytest.mark.parametrize("value", [None, 3, [], {}, {"amax": 1, "min": 0}, {"amax": "much", "min": 0, "max": 1}])
def test_range_without_its_bounds_is_refused(value: Any) -> None:
    with pytest.raises(
        InputError, match=r"^calibration: the range of /dense is .*, but it needs the numbers amax, min and max"
    ):
        range_from_json("/dense", value)


@pytest.mark.parametrize("amax", [0, -1, float("nan"), float("inf"), 10**400])
def test_range_that_is_not_finite_and_above_zero_is_refused(amax: float) -> None:
    with pytest.raises(InputError, match=r"^calibration: the range of x is "):
        range_from_json("x", {"amax": amax, "min": 0, "max": 0})


@pytest.mark.parametrize("key", ["min", "max"])
def test_ends_must_be_finite(key: str) -> None:
    with pytest.raises(InputError, match="must be finite"):
        range_from_json("x", {"amax": 1.0, "min": -1.0, "max": 1.0, key: float("nan")})
