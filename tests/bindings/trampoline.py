"""Call a Python calibrator the way TensorRT's builder does: through the C++ object under it.

A subclass made in Python stands under a C++ object of the bindings, whose virtual functions (the "trampolines")
call the Python methods and translate what they return. Only the builder calls them, and it needs a GPU; here
they are found in the object's table of virtual functions instead, without TensorRT's headers. The places in
that table are those of 10.16 on Linux; `get_algorithm`, whose answer is known, shows that they are right.
"""

import ctypes
from typing import Any

import tensorrt as trt

POINTER_AT = 16
"""The offset of the C++ object's address in a pybind11 object: after the reference count and the type."""

BATCH_SIZE, BATCH, READ, WRITE, ALGORITHM = 4, 5, 6, 7, 8
"""Places in the table; before them are the base interface's two functions and two destructors."""

Pointers = ctypes.POINTER(ctypes.c_void_p)


class Builder:
    """The side of TensorRT's builder that a calibrator sees."""

    def __init__(self, calibrator: Any) -> None:
        self.calibrator = calibrator  # the C++ object lives as long as this one
        self.this = ctypes.cast(id(calibrator) + POINTER_AT, Pointers)[0]
        self.table = ctypes.cast(ctypes.cast(self.this, Pointers)[0], Pointers)
        assert self._call(ALGORITHM, ctypes.c_int32) == int(trt.CalibrationAlgoType.ENTROPY_CALIBRATION_2)

    def batch_size(self) -> int:
        return self._call(BATCH_SIZE, ctypes.c_int32)

    def batch(self, *names: str) -> list[int | None] | None:
        """Ask for one batch and return the pointers for these inputs, or None at the end of the data."""
        pointers = (ctypes.c_void_p * len(names))()
        texts = (ctypes.c_char_p * len(names))(*map(str.encode, names))
        more = self._call(BATCH, ctypes.c_bool, ctypes.addressof(pointers), ctypes.addressof(texts), len(names))
        return list(pointers) if more else None

    def read(self) -> bytes | None:
        """Ask for the cache and return it, or None where there is none."""
        length = ctypes.c_size_t()
        start = self._call(READ, ctypes.c_void_p, ctypes.addressof(length))
        return None if start is None else ctypes.string_at(start, length.value)

    def write(self, cache: bytes) -> None:
        """Hand over a cache in memory that is overwritten as soon as the call is over."""
        memory = ctypes.create_string_buffer(cache, len(cache))
        self._call(WRITE, None, ctypes.addressof(memory), len(cache))
        ctypes.memset(memory, 0, len(cache))

    def _call(self, place: int, result: Any, *arguments: int) -> Any:
        types = [ctypes.c_size_t if index else ctypes.c_void_p for index in range(len(arguments) + 1)]
        return ctypes.CFUNCTYPE(result, *types)(self.table[place])(self.this, *arguments)
