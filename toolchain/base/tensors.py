"""Types that many modules share: a batch, the logits of a batch, the function that runs a model, calibration ranges."""

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

# The output of a model for a batch, float32 [batch, *row]: logits, or the vectors of an embedding model.
Logits = NDArray[np.float32]

# The shape of the output for one row. None is the sequence length of the batch; outputs at padded positions are 0.
RowShape = tuple[int | None, ...]

# A function that takes a batch and returns its logits, float32 [batch, *row]. The device is idle when it returns.
Infer = Callable[[Batch], Logits]

# Names of the inputs with which a served model gets the texts of its rows: each is BYTES [n, 1].
TEXT_INPUTS = ("TEXT", "TEXT_PAIR")

# The largest level of symmetric INT8. It uses -127..127 without -128, so that x and -x have the same scale.
INT8_LEVELS = 127

# Between these limits, a scale is a normal float32 number, so it has full precision.
SMALLEST_SCALE, LARGEST_SCALE = 1.2e-38, 3e38


def is_of(shape: tuple[int, ...], rows: int, row: RowShape) -> bool:
    """Return whether `shape` is [rows, *row]. Where `row` has None, any sequence length fits."""
    return len(shape) == 1 + len(row) and all(
        size in (None, found) for size, found in zip((rows, *row), shape, strict=True)
    )


def joined(parts: Sequence[Logits]) -> Logits:
    """Concatenate outputs of several batches along the rows. Outputs per token are padded with zeros to the longest."""
    if parts[0].ndim == 2:
        return np.concatenate(parts)
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, longest - part.shape[1]), (0, 0))) for part in parts])


@dataclass(frozen=True)
class Range:
    """The calibration range of one tensor: values outside it are clipped when the tensor is quantized.

    `amax` is the absolute value that maps to 127 in symmetric int8. `low` and `high` are the limits for an
    asymmetric type; both lie within [-amax, amax].
    """

    amax: float
    low: float
    high: float

    @property
    def scale(self) -> float:
        """The scale of symmetric int8, amax / 127.

        The scale in a graph may differ slightly: graph/fp16.py rounds the scales of model.int8.onnx to float16.
        """
        return self.amax / INT8_LEVELS

    def to_json(self) -> RangeRecord:
        """Return the entry of this range in calibration.json, without its key `scale`."""
        return {"amax": self.amax, "min": self.low, "max": self.high}


# Tensor name -> calibration range.
Ranges = dict[str, Range]


def range_from_json(name: str, value: Any, *, where: str = "calibration") -> Range:
    """Return the range of the tensor `name` from `value`, its entry in calibration.json.

    Raises:
        InputError: amax, min or max is missing or not finite, min is above max, or amax / 127 is not a normal float32
            number above zero. The message begins with `where`.
    """
    try:
        found = Range(float(value["amax"]), float(value["min"]), float(value["max"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where}: the range of {name} is {value!r}, but it needs the numbers amax, min and max. Calibrate again."
        ) from error
    finite = all(map(math.isfinite, (found.amax, found.low, found.high)))
    # A graph stores the scale in float32, so the scale must be a normal float32 number.
    if not finite or found.low > found.high or not SMALLEST_SCALE < found.scale < LARGEST_SCALE:
        raise InputError(
            f"{where}: the range of {name} is {value!r}, but it must be finite, with amax above zero and min not above "
            "max. Calibrate again."
        )
    return found
