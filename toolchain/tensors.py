"""What goes in and out of a model, and how far a tensor reaches."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import InputError

Array = NDArray[Any]

Batch = dict[str, Array]
"""Input name -> int32 [batch, sequence]."""

Infer = Callable[[Batch], NDArray[np.float32]]
"""A batch -> logits, float32 [batch, classes]. The device is idle when it returns."""

TEXT_INPUTS = ("TEXT", "TEXT_PAIR")
"""What a server calls the texts of a row: BYTES [n, 1] each."""

INT8_LEVELS = 127
"""Symmetric int8 uses -127..127, so that a range and its negative meet the same scale."""


@dataclass(frozen=True)
class Range:
    """How far one tensor reaches.

    `amax` is the calibrated |x| that maps to 127; `low` and `high` are the calibrated ends,
    each within [-amax, amax], that an asymmetric type uses.
    """

    amax: float
    low: float
    high: float

    @property
    def scale(self) -> float:
        """The step of symmetric int8: amax / 127."""
        return self.amax / INT8_LEVELS

    def to_json(self) -> dict[str, float]:
        """Return the form that calibration.json holds."""
        return {"amax": self.amax, "min": self.low, "max": self.high}


SMALLEST_SCALE, LARGEST_SCALE = 1.2e-38, 3e38
"""Between them float32 has its full precision."""

Ranges = dict[str, Range]
"""Tensor name -> range."""


def range_from_json(name: str, value: Any, *, where: str = "calibration") -> Range:
    """Read one entry of calibration.json.

    Raises:
        InputError: a bound is missing, not finite, or amax is not above zero.
    """
    try:
        found = Range(float(value["amax"]), float(value["min"]), float(value["max"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where}: range of {name} is {value!r}. It needs amax, min and max; calibrate again."
        ) from error
    finite = all(map(math.isfinite, (found.amax, found.low, found.high)))
    # The scale becomes a float32, which must hold it.
    if not finite or found.low > found.high or not SMALLEST_SCALE < found.scale < LARGEST_SCALE:
        raise InputError(
            f"{where}: range of {name} is {value!r}. It must be finite, amax above zero and min not above max; "
            "calibrate again."
        )
    return found
