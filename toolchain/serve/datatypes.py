"""The datatypes of the Open Inference Protocol, and the binary form of tensors that HTTP and gRPC share.

The binary form has the elements in row-major order, little-endian, without gaps. A BYTES element is its length, as an
unsigned 32-bit number, followed by that many bytes. A wrong size is refused before memory of that size is allocated.
Sources: KServe's V2 protocol ("Tensor Data") and Triton's binary tensor extension. Refusals have the texts of Triton
2.51.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.base.tensors import Array
from toolchain.serve.limits import MAX_DIMENSIONS, MAX_ELEMENTS
from toolchain.serve.protocol import RefusedError, Tensor, invalid

BYTES = "BYTES"

# Datatype -> the numpy type of a Tensor's array.
NUMPY = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # the bits as integers, because numpy has no bfloat16
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BYTES: np.dtype("O"),
}

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Declared:
    """An input tensor as a request declares it: its name, datatype and shape.

    The methods add the elements and return the Tensor. `model` is the name of the model for error messages.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    model: str

    def from_bytes(self, blob: bytes | memoryview) -> Tensor:
        """Return the tensor whose binary form is `blob`.

        The array of numbers is a view of `blob`; strings are copied.

        Raises:
            RefusedError: unknown datatype, or the number of bytes does not match the shape.
        """
        count = self._count_elements()
        if self.datatype == BYTES:
            return self.from_strings(self._split(count, blob))
        dtype = NUMPY[self.datatype]
        self._check_bytes(len(blob), count * dtype.itemsize)
        return self._tensor(np.frombuffer(blob, dtype))

    def from_numbers(self, numbers: Sequence[Any]) -> Tensor:
        """Return the tensor with these elements, which come from JSON or from a protobuf field.

        Raises:
            RefusedError: unknown datatype, the number of elements does not match the shape, or an element is outside
                the range of the datatype.
        """
        self.check_size(len(numbers))
        count = self._count_elements()
        dtype = NUMPY[self.datatype]
        self._check_bytes(len(numbers) * dtype.itemsize, count * dtype.itemsize)
        given = numbers if isinstance(numbers, list) else np.asarray(numbers)
        try:
            with np.errstate(over="ignore"):  # a number outside FP32's range becomes infinite
                array = np.array(given, dtype)
            # In a list, numpy itself finds numbers that are out of range, and raises OverflowError.
            is_beyond = given is not numbers and dtype.kind in "iu" and (array != given).any()
        except OverflowError:
            is_beyond = True
        if is_beyond:
            raise self._refused(f"a number outside the range of {self.datatype}")
        return self._tensor(array)

    def from_strings(self, strings: Sequence[bytes]) -> Tensor:
        """Return the tensor with these strings, in an array of the dtype object.

        Raises:
            RefusedError: the number of strings does not match the shape.
        """
        self.check_size(len(strings))
        count, found = self._count_elements(), len(strings)
        if found > count:
            raise self._wrong_strings(f"unexpected number of string elements {found}", f", expecting {count}")
        if found < count:
            raise self._wrong_strings(f"expected {count} string elements", f", got {found}")
        array = np.empty(count, object)
        array[:] = strings
        return self._tensor(array)

    def check_size(self, elements: int) -> None:
        """Refuse an input that has too many elements to be checked one by one.

        Raises:
            RefusedError: there are more than MAX_ELEMENTS.
        """
        if elements > MAX_ELEMENTS:
            raise self._refused("unexpected shape", f". Expected at most {MAX_ELEMENTS} elements, got {elements}")

    def _count_elements(self) -> int:
        if self.datatype not in NUMPY:
            raise invalid(f"invalid datatype for input {self.name}: data-type is '<invalid>' for model '{self.model}'")
        if len(self.shape) > MAX_DIMENSIONS:
            raise self._refused("unexpected shape", f". Expected at most {MAX_DIMENSIONS} dimensions")
        if any(size < 1 for size in self.shape):
            sizes = ",".join(map(str, self.shape))
            raise self._refused("unexpected shape", f". Expected dimensions of at least 1, got [{sizes}]")
        return math.prod(self.shape)

    def _tensor(self, array: Array) -> Tensor:
        return Tensor(self.name, self.datatype, array.reshape(tuple(self.shape)))

    def _split(self, count: int, blob: bytes | memoryview) -> list[bytes]:
        """Return the strings in `blob`, which has the binary form of a BYTES tensor.

        Stop after `count` + 1 strings: one too many is enough for the caller to refuse the input.
        """
        self.check_size(min(count, len(blob) // _LENGTH.size))
        strings: list[bytes] = []
        at, end = 0, len(blob)
        while at < end and len(strings) <= count:
            if end - at < _LENGTH.size:
                detail = f", expecting {_LENGTH.size} bytes but only {end - at} bytes available"
                raise self._wrong_strings("incomplete string length indicator", detail)
            (length,) = _LENGTH.unpack_from(blob, at)
            at += _LENGTH.size
            if length > end - at:
                detail = f", expecting string of length {length} but only {end - at} bytes available"
                raise self._wrong_strings("incomplete string data", detail)
            strings.append(bytes(blob[at : at + length]))
            at += length
        return strings

    def _check_bytes(self, found: int, expected: int) -> None:
        if found != expected:
            raise self._refused("input byte size mismatch", f". Expected {expected}, got {found}")

    def _refused(self, problem: str, detail: str = "") -> RefusedError:
        return invalid(f"{problem} for input '{self.name}' for model '{self.model}'{detail}")

    def _wrong_strings(self, problem: str, detail: str) -> RefusedError:
        return invalid(f"{problem} for inference input '{self.name}' for model '{self.model}'{detail}")


def to_bytes(array: Array, datatype: str) -> bytes:
    """Return the binary form of an output, whose elements have the type `datatype`."""
    if datatype != BYTES:
        return np.asarray(array, NUMPY[datatype]).tobytes()
    return b"".join(_LENGTH.pack(len(text)) + text for text in array.reshape(-1).tolist())
