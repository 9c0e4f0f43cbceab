"""The binary form of tensors against numpy, against tritonclient's codec, and with damaged bytes."""

import math
import struct
import tracemalloc

import numpy as np
import pytest

from toolchain.serve.datatypes import BYTES, NUMPY, Declared, to_bytes
from toolchain.serve.proto import MESSAGES
from toolchain.serve.protocol import Reason, RefusedError

FIXED = sorted(set(NUMPY) - {BYTES})
HI = struct.pack("<I", 2) + b"hi"


def take(datatype, shape, blob):
    return Declared("TEXT", datatype, shape, "demo").from_bytes(blob).array


@pytest.mark.parametrize("datatype", FIXED)
def test_a_fixed_size_type_has_numpys_layout(datatype):
    array = np.array([[0, 1, 1], [1, 0, 1]], NUMPY[datatype])
    blob = to_bytes(array.T, datatype)  # an array that is not contiguous
    assert blob == array.T.astype(NUMPY[datatype].newbyteorder("<")).tobytes()
    np.testing.assert_array_equal(take(datatype, [3, 2], memoryview(blob)), array.T)


@pytest.mark.parametrize("texts", [[b""], [b"hi", "Käse ☕".encode()], [b"a" * 70_000, b"\x00", b"\xff"]])
def test_strings_have_tritonclients_form(texts):
    utils = pytest.importorskip("tritonclient.utils")
    array = np.array(texts, object).reshape(-1, 1)
    blob = utils.serialize_byte_tensor(array).item()
    assert to_bytes(array, BYTES) == blob
    found = take(BYTES, [len(texts), 1], blob)
    assert found.shape == array.shape
    assert found.tolist() == array.tolist()
    assert utils.deserialize_bytes_tensor(to_bytes(array, BYTES)).tolist() == texts


@pytest.mark.parametrize(
    ("datatype", "shape", "blob", "words"),
    [
        (
            BYTES,
            [1, 1],
            HI[:-1],
            "incomplete string data for inference input 'TEXT' for model 'demo', expecting string "
            "of length 2 but only 1 bytes available",
        ),
        (BYTES, [1, 1], struct.pack("<I", 2**32 - 1) + b"hi", "string of length 4294967295 but only 2 bytes available"),
        (BYTES, [2, 1], HI + b"\0\0", "incomplete string length indicator .*, expecting 4 bytes but only 2 bytes"),
        (BYTES, [2, 1], HI, "expected 2 string elements for inference input 'TEXT' for model 'demo', got 1"),
        (BYTES, [2**62, 1], HI, "expected 4611686018427387904 string elements"),
        (BYTES, [1, 1], HI + HI, "unexpected number of string elements 2 for inference input 'TEXT'.*, expecting 1"),
        ("FP32", [1, 4], b"\0" * 12, "input byte size mismatch for input 'TEXT' for model 'demo'. Expected 16, got 12"),
        ("INT64", [2**62, 2**62], b"", "byte size mismatch"),
        ("WAT", [1], b"", "invalid datatype for input TEXT"),
        (BYTES, [-1, 1], HI, r"unexpected shape for input 'TEXT' for model 'demo'.*got \[-1,1\]"),
        (BYTES, [0, 1], b"", "at least 1"),
        (BYTES, [2**62] * 100_000, b"", "at most 8 dimensions"),
    ],
)
def test_bytes_that_do_not_match_are_refused_with_tritons_texts(datatype, shape, blob, words):
    with pytest.raises(RefusedError, match=words) as refused:
        take(datatype, shape, blob)
    assert refused.value.reason is Reason.INVALID


@pytest.mark.parametrize(
    ("datatype", "field", "numbers", "beyond"),
    [
        ("INT8", "int_contents", [-128, 127], 128),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1], None),
        ("UINT16", "uint_contents", [0, 65_535], 65_536),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1], None),
        ("UINT64", "uint64_contents", [0, 2**64 - 1], None),
        ("BOOL", "bool_contents", [True, False], None),
        ("FP32", "fp32_contents", [0.1, float("nan")], None),
        ("FP64", "fp64_contents", [0.1, float("-inf")], None),
    ],
)
def test_numbers_of_protobuf_are_those_of_python(datatype, field, numbers, beyond):
    def read(values):
        return Declared("x", datatype, [len(values)], "demo").from_numbers(values).array

    def contents(values):
        return getattr(MESSAGES["inference.InferTensorContents"](**{field: values}), field)

    found = read(contents(numbers))
    assert found.dtype == NUMPY[datatype]
    np.testing.assert_array_equal(found, read(numbers))
    for values in ([beyond], contents([beyond])) if beyond else ():
        with pytest.raises(
            RefusedError, match=f"a number outside the range of {datatype} for input 'x' for model 'demo'"
        ):
            read(values)


def mutations(whole, count):
    """Yield bytes with up to three changes, half of them cut short, and a shape that is usually right."""
    random = np.random.default_rng(7)
    for _ in range(count):
        blob = bytearray(whole)
        for at in random.integers(0, len(blob), random.integers(0, 4)):
            blob[at] = random.integers(256)
        end = random.integers(len(blob) // 2, len(blob) + 1) if random.integers(2) else len(blob)
        yield bytes(blob[:end]), [4, 1] if random.integers(4) else random.integers(-2, 2**40, 2).tolist()


def test_ten_thousand_mutations_are_parsed_or_refused_in_little_memory():
    whole = to_bytes(np.array([b"a sentence", b"", b"another one", b"x" * 300], object), BYTES)
    read, refused = 0, set()
    tracemalloc.start()
    for blob, shape in mutations(whole, 10_000):
        try:
            found = take(BYTES, shape, blob)
        except RefusedError as error:
            refused.add(error.reason)
            continue
        read += 1
        assert found.size == math.prod(shape) == 4
        assert to_bytes(found, BYTES) == blob
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 500 < read < 9_500
    assert refused == {Reason.INVALID}
    assert peak < 1_000_000
