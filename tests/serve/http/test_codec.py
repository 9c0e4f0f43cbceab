"""The codec of HTTP bodies: tensors survive both directions, and damaged bodies are read or refused."""

import json
import math
import random
import struct

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from toolchain.serve.datatypes import NUMPY
from toolchain.serve.grpc.codec import to_message
from toolchain.serve.http.codec import OutputForm, decode, encode, split
from toolchain.serve.protocol import InferResponse, RefusedError, Tensor

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
texts = st.lists(st.binary(max_size=8), min_size=1, max_size=6)


@st.composite
def tensors(draw, names=tuple(NUMPY)):
    datatype = draw(st.sampled_from(names))
    if datatype == "BYTES":
        values = draw(texts)
        array = np.empty(len(values), object)
        array[:] = values
        return Tensor("x", datatype, array.reshape(-1, 1))
    return Tensor("x", datatype, draw(arrays.arrays(NUMPY[datatype], draw(shapes))))


def body(*tensors_sent):
    """Return a request and the length of its JSON, made by the text of the protocol without the codec under test."""
    blobs, inputs = [], []
    for tensor in tensors_sent:
        flat = tensor.array.reshape(-1)
        blob = b"".join(struct.pack("<I", len(one)) + one for one in flat) if flat.dtype == object else flat.tobytes()
        blobs.append(blob)
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.array.shape),
                "parameters": {"binary_data_size": len(blob)},
            }
        )
    text = json.dumps({"inputs": inputs}).encode()
    return text + b"".join(blobs), str(len(text)).encode()


@given(st.lists(tensors(), min_size=1, max_size=3))
def test_binary_tensors_are_read_as_they_were_sent(sent):
    data, length = body(*sent)
    found, _ = decode(data, model="m", version="", json_length=length)
    for one, other in zip(found.inputs, sent, strict=True):
        assert (one.name, one.datatype, one.array.shape) == (other.name, other.datatype, other.array.shape)
        assert one.array.tolist() == other.array.tolist() or one.array.tobytes() == other.array.tobytes()


@given(tensors(), st.booleans())
def test_a_response_holds_the_tensor_in_both_forms(tensor, binary):
    data, length = encode(InferResponse("m", "1", "i", (tensor,)), OutputForm(binary))
    output = json.loads(data[:length])["outputs"][0]
    assert (output["shape"], output["datatype"]) == (list(tensor.array.shape), tensor.datatype)
    if binary:
        assert output["parameters"]["binary_data_size"] == len(data) - length
        assert data[length:] == body(tensor)[0][int(body(tensor)[1]) :]
    elif tensor.datatype == "BYTES":
        assert output["data"] == [one.decode(errors="replace") for one in tensor.array.reshape(-1)]
    else:
        back = np.array([math.nan if one is None else one for one in output["data"]], tensor.array.dtype)
        finite = np.isfinite(tensor.array.reshape(-1))
        assert back[finite].tolist() == tensor.array.reshape(-1)[finite].tolist()
        assert [one is None for one in output["data"]] == (~finite).tolist()


def test_a_number_that_is_not_finite_is_null_in_json():
    array = np.array([[np.nan, np.inf, -np.inf, 0.1]], np.float32)
    data, _ = encode(InferResponse("m", "1", "", (Tensor("x", "FP32", array),)), OutputForm())
    assert b'"data":[null,null,null,0.1]' in data


def read_or_refuse(data, length=None):
    """Return whether a body was read; a read tensor must have its datatype. Only RefusedError may be raised."""
    try:
        found, _ = decode(data, model="m", version="", json_length=length)
    except RefusedError:
        return False
    return all(one.array.dtype == NUMPY[one.datatype] for one in found.inputs) or pytest.fail(f"{data!r}")


def test_ten_thousand_damaged_bodies_are_refused_or_read():
    generator = random.Random(7)
    text, number = np.array([[b"hi"], [b"there"]], object), np.arange(6).reshape(2, 3)
    whole = [body(Tensor("a", "BYTES", text), Tensor("b", "INT64", number)), body(Tensor("a", "BYTES", text[:1]))]
    refused = 0
    for _ in range(10_000):
        data, length = generator.choice(whole)
        at, cut = generator.randrange(len(data)), generator.randrange(4)
        data = data[:at] + generator.randbytes(generator.randrange(4)) + data[at + cut :]
        wrong = [int(length) + generator.randrange(-3, 4), generator.getrandbits(70)]
        refused += not read_or_refuse(data, b"%d" % generator.choice([int(length)] * 8 + wrong))
    assert 1000 < refused < 10_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def nearly_requests(draw):
    """Make a valid request, and replace some members by any value."""
    tensor = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["hi"], "parameters": {}}
    record = {"id": "i", "inputs": [tensor], "outputs": [{"name": "LABEL", "parameters": {}}], "parameters": {}}
    places = [record, tensor, record["outputs"][0], tensor["parameters"]]
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(places))
        keys = [*place, "binary_data_size", "binary_data", "classification", "timeout", "shared_memory_region"]
        place[draw(st.sampled_from(keys))] = draw(json_values)
    return json.dumps(record).encode(errors="replace")


@seed(7)
@settings(max_examples=400)
@given(nearly_requests())
def test_wrong_members_are_refused_or_read(data):
    read_or_refuse(data)


@pytest.mark.parametrize(
    ("datatype", "data", "shape"),
    [
        ("INT64", [1.5, 2], [2]),
        ("INT64", ["a", 2], [2]),
        ("INT64", [True, 2], [2]),
        ("UINT8", [-1], [1]),
        ("UINT8", [256], [1]),
        ("BOOL", [1], [1]),
        ("BYTES", [3], [1]),
        ("BYTES", [["a"], "b"], [2]),
        ("FP16", [1], [1]),
        ("INT64", [1], [2]),
        ("INT64", [1, 2, 3], [2]),
        ("WAT", [1], [1]),
        ("INT64", [1], [True]),
        ("INT64", [1], [-1]),
        ("INT64", [1], [2**62] * 2),
        ("INT64", [1], [1] * 100_000),
    ],
)
def test_json_that_does_not_match_its_datatype_or_shape_is_refused(datatype, data, shape):
    record = {"inputs": [{"name": "x", "datatype": datatype, "data": data, "shape": shape}]}
    with pytest.raises(RefusedError):
        decode(json.dumps(record).encode(), model="m", version="")


def test_json_arrays_may_be_nested_or_flat():
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]], [[[1], [2]], [[3], [4]]]):
        record = {"inputs": [{"name": "x", "datatype": "INT32", "data": data, "shape": [2, 2]}]}
        found, _ = decode(json.dumps(record).encode(), model="m", version="")
        assert found.inputs[0].array.tolist() == [[1, 2], [3, 4]]


def test_lists_that_are_nested_deeper_than_any_tensor_are_refused():
    record = b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": %s"a"%s}]}'
    for depth in (2, 100):
        assert read_or_refuse(record % (b"[" * depth, b"]" * depth)) == (depth == 2)


@pytest.mark.parametrize("length", [b"0", b"-1", b"abc", b"3", b"99999", b"1_0", b"9" * 5000, b""])
def test_a_header_that_is_not_a_length_within_the_body_is_refused(length):
    with pytest.raises(RefusedError, match=r"should be in range \(0, 2\)"):
        split(b"{}", length)


def test_too_few_or_too_many_bytes_are_refused():
    data, length = body(Tensor("x", "INT32", np.arange(4, dtype=np.int32)))
    for change, words in ((data[:-3], "expecting 3 additional bytes"), (data + b"!", "unexpected additional input")):
        with pytest.raises(RefusedError, match=words):
            decode(change, model="m", version="", json_length=length)


def test_each_output_has_its_own_form():
    chosen = {"binary_data": False, "classification": 3}
    record = {
        "inputs": [],
        "outputs": [{"name": "a"}, {"name": "b", "parameters": chosen}],
        "parameters": {"binary_data_output": True, "timeout": 5, "unknown": "ignored"},
    }
    request, form = decode(json.dumps(record).encode(), model="m", version="1")
    assert (request.outputs, request.classes, request.timeout_us, request.version) == (("a", "b"), {"b": 3}, 5, "1")
    assert form == OutputForm(binary=True, chosen={"b": False})


def test_a_response_says_how_many_of_its_rows_were_cut():
    tensor = Tensor("LOGITS", "FP32", np.zeros((3, 2), np.float32))
    body, none = (json.loads(encode(InferResponse("m", "1", "", (tensor,), cut), OutputForm())[0]) for cut in (2, 0))
    assert body["parameters"] == {"truncated_rows": 2}
    assert "parameters" not in none
    message, without = (to_message(InferResponse("m", "1", "", (tensor,), cut)) for cut in (2, 0))
    assert message.parameters["truncated_rows"].int64_param == 2
    assert not without.parameters


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs": [], "inputs": []}',
        b'{"inputs": [{"name": "a", "name": "b"}]}',
        b'{"inputs": [], "parameters": {"timeout": 1, "timeout": 2}}',
        b'{"inputs": [], "other": {"a": 1, "a": 2}}',
        b'{"inputs": [], "n": %s, "n": 1}' % (b"9" * 300),
        b'{"inputs": [], "a\\\\": 1, "a\\\\" : 2}',
    ],
)
def test_a_key_that_is_given_twice_is_refused(text):
    with pytest.raises(RefusedError, match="a key is given twice"):
        decode(text, model="demo", version="")


def test_colons_in_texts_and_unknown_objects_are_allowed():
    data = ['a: b "c":', ":"]
    tensor = {"name": "TEXT", "shape": [2, 1], "datatype": "BYTES", "data": data}
    body = json.dumps({"inputs": [tensor], "parameters": {"x": {"y": 1}}, "other": {"z": {}}}).encode()
    request, _ = decode(body, model="demo", version="")
    assert request.inputs[0].array.ravel().tolist() == [text.encode() for text in data]


def test_the_texts_of_a_response_count_as_its_size():
    numbers, texts = np.zeros((2, 3), np.float32), np.array([[b"x" * 1000], [b""]], object)
    response = InferResponse("m", "1", "", (Tensor("n", "FP32", numbers), Tensor("t", "BYTES", texts)))
    assert response.size == numbers.nbytes + texts.nbytes + 1000
