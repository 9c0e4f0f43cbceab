"""TensorRT 10's entropy calibrator, fed with tokenised rows.

TensorRT calls its methods from C++, where an exception is only printed and then treated as the end of the data. A
calibration that was cut short would look as if it had succeeded. Therefore each method catches exceptions, and the
first is raised after the build.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from toolchain.base.tensors import Batch
from toolchain.errors import InputError

# Major versions of TensorRT that have calibrators.
MAJORS = (8, 10)

# A function that copies an array to the device buffer of an input and returns the buffer's address. The data stays
# there until the next batch.
Upload = Callable[[str, Any], int]

# Input name -> the shape in which the engine reads it.
Shapes = dict[str, tuple[int, ...]]


class Feeder:
    """The four methods of a calibrator, without TensorRT's base class, so that they can be tested without TensorRT."""

    def __init__(
        self, batches: Iterable[Batch], cache: bytes | None, upload: Upload | None, shapes: Shapes | None
    ) -> None:
        """Keep the arguments, which are those of `entropy_calibrator`."""
        self._batches: Iterator[Batch] = iter(batches)
        self._cache, self._upload, self._shapes = cache, upload, shapes
        self.error: BaseException | None = None
        self.batches_seen = 0
        self.cache_written: bytes | None = None

    def get_batch_size(self) -> int:
        """Return 1, because the network's shapes include the batch."""
        return 1

    def get_batch(self, names: list[str]) -> list[int] | None:
        """Upload the next batch; return the device address of each input in `names`, or None at the end of the data."""
        if self._cache is not None or self.error is not None:
            return None
        try:
            batch = next(self._batches, None)
            if batch is None:
                return None
            addresses = [_address(name, batch, self._upload, self._shapes) for name in names]
            self.batches_seen += 1
            return addresses
        except BaseException as error:  # raised after the build (see the module's docstring)
            self.error = error
            return None

    def read_calibration_cache(self) -> bytes | None:
        """Return the cache, or None so that TensorRT calibrates. TensorRT would take empty bytes for a cache."""
        return self._cache or None

    def write_calibration_cache(self, cache: Any) -> None:
        """Keep a copy of the cache that TensorRT made, because TensorRT frees its memory."""
        try:
            self.cache_written = bytes(cache)
        except BaseException as error:  # raised after the build (see the module's docstring)
            self.error = error


def entropy_calibrator(
    trt: Any,
    batches: Iterable[Batch],
    *,
    cache: bytes | None,
    upload: Upload | None = None,
    shapes: Shapes | None = None,
) -> Any:
    """Return an `IInt8EntropyCalibrator2` that feeds `batches`, or, if `cache` is given, the cache and no batches.

    Every array must be int32 and have exactly the shape in `shapes`, because TensorRT calibrates at the profile's OPT
    shape and reads that many bytes, however many the buffer has. Keep a reference until the build has ended, because
    the builder keeps none. Then read `error`, `batches_seen` and `cache_written`.
    """

    class EntropyCalibrator(Feeder, trt.IInt8EntropyCalibrator2):  # type: ignore[misc]  # the base is only known here
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            Feeder.__init__(self, batches, cache, upload, shapes)

    return EntropyCalibrator()


def _address(name: str, batch: Batch, upload: Upload | None, shapes: Shapes | None) -> int:
    if name not in batch:
        raise InputError(f"calibrator: the engine reads {name}, but the rows have {', '.join(batch)}. Report this bug.")
    array = batch[name]
    wanted = shapes[name] if shapes else array.shape
    if array.dtype != np.int32 or array.shape != wanted:
        raise InputError(
            f"calibrator: {name} is {array.dtype}{list(array.shape)}, but the engine reads int32{list(wanted)}. "
            "Report this bug."
        )
    assert upload is not None  # only a calibrator with a cache has no `upload`, and it reads no batch
    return int(upload(name, np.ascontiguousarray(array)))


def set_calibrator(config: Any, calibrator: Any, profiles: list[Any]) -> None:
    """Set the calibrator of a build. The calibrator's batches have the OPT shapes of the last profile, if any."""
    config.int8_calibrator = calibrator
    if profiles:
        config.set_calibration_profile(profiles[-1])
