"""The datatypes of the Open Inference Protocol, and the binary form of tensors that HTTP and gRPC share.

The binary form has the elements in row-major order, little-endian, without gaps. A BYTES element is its length, as an
unsigned 32-bit number, followed by that many bytes. A wrong size is refused before memory of that size is allocated.
Sources: KServe's V2 protocol ("Tensor Data") and Triton's binary tensor extension. Refusals have the texts of Triton
2.51.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolchain.base.tensors import Array
from toolchain.serve.limits import MAX_DIMENSIONS, MAX_ELEMENTS
from toolchain.serve.protocol import RefusedError, invalid

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
    "BF16": np.dtype("<u2"),  # the bits, because numpy lacks the type
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BYTES: np.dtype("O"),
}

_LENGTH = struct.Struct("<I")


def count_elements(name: str, datatype: str, shape: Sequence[int], *, model: str) -> int:
    """Return the number of elements of an input.

    Raises:
        RefusedError: unknown datatype, too many dimensions, or a dimension below 1.
    """
    if datatype not in NUMPY:
        raise invalid(f"invalid datatype for input {name}: data-type is '<invalid>' for model '{model}'")
    if len(shape) > MAX_DIMENSIONS:
        raise _refused("unexpected shape", name, model, f". Expected at most {MAX_DIMENSIONS} dimensions")
    if any(size < 1 for size in shape):
        sizes = ",".join(map(str, shape))
        raise _refused("unexpected shape", name, model, f". Expected dimensions of at least 1, got [{sizes}]")
    return math.prod(shape)


def check_size(name: str, elements: int, *, model: str) -> None:
    """Refuse an input whose elements are too many to look at each.

    Raises:
        RefusedError: there are more than MAX_ELEMENTS.
    """
    if elements > MAX_ELEMENTS:
        raise _refused("unexpected shape", name, model, f". Expected at most {MAX_ELEMENTS} elements, got {elements}")


def decode(name: str, datatype: str, shape: Sequence[int], blob: bytes | memoryview, *, model: str) -> Array:
    """Return an input's array from its binary form: a view of it, or an object array of `bytes` for BYTES.

    Raises:
        RefusedError: unknown datatype, or the number of bytes does not match the shape.
    """
    count = count_elements(name, datatype, shape, model=model)
    if datatype == BYTES:
        return from_strings(name, shape, _split(name, count, blob, model), model=model)
    dtype = NUMPY[datatype]
    _check_bytes(len(blob), count * dtype.itemsize, name, model)
    return np.frombuffer(blob, dtype).reshape(tuple(shape))


def from_numbers(name: str, datatype: str, shape: Sequence[int], numbers: Sequence[Any], *, model: str) -> Array:
    """Return an input's array from its elements, which Python or protobuf has as numbers.

    Raises:
        RefusedError: unknown datatype, the number of elements does not match the shape, or one is beyond the datatype.
    """
    check_size(name, len(numbers), model=model)
    count = count_elements(name, datatype, shape, model=model)
    dtype = NUMPY[datatype]
    _check_bytes(len(numbers) * dtype.itemsize, count * dtype.itemsize, name, model)
    try:
        with np.errstate(over="ignore"):  # a number beyond FP32 becomes infinite
            return np.array(list(numbers), dtype).reshape(tuple(shape))  # numpy checks no range of protobuf's arrays
    except OverflowError:
        raise _refused(f"a number beyond {datatype}", name, model, "") from None


def from_strings(name: str, shape: Sequence[int], strings: Sequence[bytes], *, model: str) -> Array:
    """Return a BYTES input's array, of dtype object.

    Raises:
        RefusedError: the number of strings does not match the shape.
    """
    check_size(name, len(strings), model=model)
    count = count_elements(name, BYTES, shape, model=model)
    found = len(strings)
    if found > count:
        raise _wrong_strings(f"unexpected number of string elements {found}", name, model, f", expecting {count}")
    if found < count:
        raise _wrong_strings(f"expected {count} string elements", name, model, f", got {found}")
    array = np.empty(count, object)
    array[:] = strings
    return array.reshape(tuple(shape))


def encode(array: Array, datatype: str) -> bytes:
    """Return the binary form of an output."""
    if datatype != BYTES:
        return np.asarray(array, NUMPY[datatype]).tobytes()
    return b"".join(_LENGTH.pack(len(text)) + text for text in array.reshape(-1).tolist())


def _split(name: str, count: int, blob: bytes | memoryview, model: str) -> list[bytes]:
    """Return the strings of a BYTES tensor; if there are more than `count`, stop after one more."""
    check_size(name, min(count, len(blob) // _LENGTH.size), model=model)
    strings: list[bytes] = []
    at, end = 0, len(blob)
    while at < end and len(strings) <= count:
        if end - at < _LENGTH.size:
            detail = f", expecting {_LENGTH.size} bytes but only {end - at} bytes available"
            raise _wrong_strings("incomplete string length indicator", name, model, detail)
        (length,) = _LENGTH.unpack_from(blob, at)
        at += _LENGTH.size
        if length > end - at:
            detail = f", expecting string of length {length} but only {end - at} bytes available"
            raise _wrong_strings("incomplete string data", name, model, detail)
        strings.append(bytes(blob[at : at + length]))
        at += length
    return strings


def _check_bytes(found: int, expected: int, name: str, model: str) -> None:
    if found != expected:
        raise _refused("input byte size mismatch", name, model, f". Expected {expected}, got {found}")


def _refused(problem: str, name: str, model: str, detail: str) -> RefusedError:
    return invalid(f"{problem} for input '{name}' for model '{model}'{detail}")


def _wrong_strings(problem: str, name: str, model: str, detail: str) -> RefusedError:
    return invalid(f"{problem} for inference input '{name}' for model '{model}'{detail}")
