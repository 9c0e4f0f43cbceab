"""The datatypes of the Open Inference Protocol, and tensors as the bytes that both wires carry.

Elements lie in row-major order, little-endian and without gaps; a BYTES element is its length, an unsigned 32-bit
number, and that many bytes. What is refused is refused before anything of the size that a client names is allocated.
Sources: KServe's V2 protocol ("Tensor Data"), Triton's binary tensor extension; messages as Triton 2.51 words them.
"""

import math
import struct
from collections.abc import Sequence

import numpy as np

from toolchain.serve.protocol import Reason, RefusedError
from toolchain.tensors import Array

BYTES = "BYTES"
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
    "BF16": np.dtype("<u2"),  # its bits: numpy has no such type
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BYTES: np.dtype("O"),
}
"""Datatype -> the numpy type of a Tensor's array."""

MOST_DIMENSIONS = 8  # models here have two; the product of a million would take minutes
_LENGTH = struct.Struct("<I")


def count_elements(name: str, datatype: str, shape: Sequence[int], *, model: str) -> int:
    """Return how many elements an input has.

    Raises:
        RefusedError: there is no such datatype, or the shape is of no tensor.
    """
    if datatype not in NUMPY:
        raise RefusedError(
            Reason.INVALID, f"invalid datatype for input {name}: data-type is '<invalid>' for model '{model}'"
        )
    if len(shape) > MOST_DIMENSIONS:
        raise _refused("unexpected shape", name, model, f". Expected at most {MOST_DIMENSIONS} dimensions")
    if any(size < 1 for size in shape):
        sizes = ",".join(map(str, shape))
        raise _refused("unexpected shape", name, model, f". Expected dimensions of at least 1, got [{sizes}]")
    return math.prod(shape)


def decode(name: str, datatype: str, shape: Sequence[int], blob: bytes | memoryview, *, model: str) -> Array:
    """Return an input's array from its bytes: a view of them, or an object array of `bytes` for BYTES.

    Raises:
        RefusedError: there is no such datatype, or the bytes are not as many as the shape says.
    """
    count = count_elements(name, datatype, shape, model=model)
    if datatype == BYTES:
        return from_strings(name, shape, _split(name, count, blob, model), model=model)
    found = NUMPY[datatype]
    if len(blob) != count * found.itemsize:
        detail = f". Expected {count * found.itemsize}, got {len(blob)}"
        raise _refused("input byte size mismatch", name, model, detail)
    return np.frombuffer(blob, found).reshape(tuple(shape))


def from_strings(name: str, shape: Sequence[int], strings: Sequence[bytes], *, model: str) -> Array:
    """Return a BYTES input's array.

    Raises:
        RefusedError: there are not as many as the shape says.
    """
    count = count_elements(name, BYTES, shape, model=model)
    if len(strings) > count:
        what = f"unexpected number of string elements {len(strings)}"
        raise _refused(what, name, model, f", expecting {count}", kind="inference input")
    if len(strings) < count:
        what = f"expected {count} string elements"
        raise _refused(what, name, model, f", got {len(strings)}", kind="inference input")
    array = np.empty(count, object)
    array[:] = strings
    return array.reshape(tuple(shape))


def encode(array: Array, datatype: str) -> bytes:
    """Return an output's bytes."""
    if datatype != BYTES:
        return np.asarray(array, NUMPY[datatype]).tobytes()
    return b"".join(_LENGTH.pack(len(text)) + text for text in array.reshape(-1).tolist())


def _split(name: str, count: int, blob: bytes | memoryview, model: str) -> list[bytes]:
    """Return the strings of BYTES, and of what is too many one only."""
    strings: list[bytes] = []
    at, end = 0, len(blob)
    while at < end and len(strings) <= count:
        if end - at < _LENGTH.size:
            detail = f", expecting {_LENGTH.size} bytes but only {end - at} bytes available"
            raise _refused("incomplete string length indicator", name, model, detail, kind="inference input")
        (length,) = _LENGTH.unpack_from(blob, at)
        at += _LENGTH.size
        if length > end - at:
            detail = f", expecting string of length {length} but only {end - at} bytes available"
            raise _refused("incomplete string data", name, model, detail, kind="inference input")
        strings.append(bytes(blob[at : at + length]))
        at += length
    return strings


def _refused(what: str, name: str, model: str, detail: str, *, kind: str = "input") -> RefusedError:
    return RefusedError(Reason.INVALID, f"{what} for {kind} '{name}' for model '{model}'{detail}")
