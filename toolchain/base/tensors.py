"""Types that cross between modules: the batches of a model, the function that runs it, and calibration ranges."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import InputError
from toolchain.records.calibration import RangeRecord

Array = NDArray[Any]

# Input name -> int32 [batch, sequence].
Batch = dict[str, Array]

# What a model puts out for a batch, float32 [batch, *row]; most models put out a row of logits.
Logits = NDArray[np.float32]

# The shape of one row of it. None stands for the tokens of the batch; where it has padded positions, they are 0.
RowShape = tuple[int | None, ...]

# A batch -> logits, float32 [batch, *row]. The device is idle when the function returns.
Infer = Callable[[Batch], Logits]

# The inputs of a served model that hold the texts of a row: BYTES [n, 1] each.
TEXT_INPUTS = ("TEXT", "TEXT_PAIR")

# Symmetric int8 uses -127..127, without -128: then x and -x have the same scale.
INT8_LEVELS = 127

# Between these limits a float32 scale has its full precision.
SMALLEST_SCALE, LARGEST_SCALE = 1.2e-38, 3e38


def is_of(shape: tuple[int, ...], rows: int, row: RowShape) -> bool:
    """Return whether logits of a shape are those of a number of rows; any number of tokens fits."""
    return len(shape) == 1 + len(row) and all(
        size in (None, found) for size, found in zip((rows, *row), shape, strict=True)
    )


def joined(parts: Sequence[Logits]) -> Logits:
    """Return the rows of all parts below each other; rows of tokens are filled with zeros to the longest."""
    if parts[0].ndim == 2:
        return np.concatenate(parts)
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, longest - part.shape[1]), (0, 0))) for part in parts])


@dataclass(frozen=True)
class Range:
    """The calibration range of one tensor, in the tensor's units.

    `amax` is the |x| that maps to 127 in symmetric int8. `low` and `high` are the ends that an asymmetric type uses;
    both lie within [-amax, amax].
    """

    amax: float
    low: float
    high: float

    @property
    def scale(self) -> float:
        """The scale of symmetric int8, amax / 127, before any rounding.

        A graph may hold another number: graph/fp16.py rounds the scales of model.int8.onnx to float16.
        """
        return self.amax / INT8_LEVELS

    def to_json(self) -> RangeRecord:
        """Return the entry of calibration.json, without its `scale`."""
        return {"amax": self.amax, "min": self.low, "max": self.high}


# Tensor name -> calibration range.
Ranges = dict[str, Range]


def range_from_json(name: str, value: Any, *, where: str = "calibration") -> Range:
    """Return the range that one entry of calibration.json states for the tensor `name`.

    Raises:
        InputError: a bound is missing or not finite, min is above max, or amax is not above zero. The message begins
            with `where`.
    """
    try:
        found = Range(float(value["amax"]), float(value["min"]), float(value["max"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where}: range of {name} is {value!r}. It needs amax, min and max; calibrate again."
        ) from error
    finite = all(map(math.isfinite, (found.amax, found.low, found.high)))
    # A graph stores the scale as float32, which must be able to hold it.
    if not finite or found.low > found.high or not SMALLEST_SCALE < found.scale < LARGEST_SCALE:
        raise InputError(
            f"{where}: range of {name} is {value!r}. It must be finite, amax above zero and min not above max; "
            "calibrate again."
        )
    return found
