"""A request for inference and its answer, as HTTP carries them: JSON, with tensors in it or as bytes behind it.

Sources: KServe's V2 protocol; Triton's extensions for binary tensors, classification and parameters. What Triton 2.51
answers with 500 because the JSON is wrong is 400 here; its words are kept.
"""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

from toolchain.serve import datatypes
from toolchain.serve.datatypes import BYTES
from toolchain.serve.http.binary import Blobs, split
from toolchain.serve.protocol import InferRequest, InferResponse, Reason, RefusedError, Tensor
from toolchain.tensors import Array

_WORDS = {list: "array", dict: "object", str: "string", bool: "boolean", int: "unsigned-integer"}
_ELEMENTS: dict[str, tuple[set[type], str]] = {
    "b": ({bool}, "boolean"),
    "u": ({int}, "unsigned-integer"),
    "i": ({int}, "signed-integer"),
    "f": ({int, float}, "number"),
    "O": ({str}, "string"),
}
"""Kind of numpy type -> the JSON that may become it."""
_BINARY_ONLY = ("FP16", "BF16")
_ONE_SOURCE = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'"
)


@dataclass(frozen=True)
class Form:
    """How the outputs are to be written."""

    binary: bool = False
    """Where an output does not say itself."""
    chosen: dict[str, bool] = field(default_factory=dict)
    """Output -> as bytes."""


class Body(NamedTuple):
    """An answer, and the length of its JSON if bytes of tensors follow it."""

    data: bytes
    json_length: int | None


def load(data: bytes | memoryview) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        RefusedError: it is none.
    """
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise _refused("failed to parse the request JSON buffer: it is not JSON") from None
    if type(found) is not dict:
        raise _refused("failed to parse the request JSON buffer: it is not an object")
    return found


def decode(body: bytes, *, model: str, version: str, json_length: bytes | None = None) -> tuple[InferRequest, Form]:
    """Return the request that a body is, and how its outputs are wanted.

    `json_length` is the header that says where its JSON ends.

    Raises:
        RefusedError: it is no request of the protocol; whether the model can answer it is checked later.
    """
    text, blobs = split(body, json_length, model=model)
    record = load(text)
    parameters = _parameters(record)
    inputs = tuple(_input(_object(one, "inputs"), blobs, model) for one in _member(record, "inputs", list))
    blobs.finish()
    outputs = [_object(one, "outputs") for one in _member(record, "outputs", list, [])]
    request = InferRequest(
        model,
        inputs,
        tuple(_member(one, "name", str) for one in outputs),
        version,
        _member(record, "id", str, ""),
        _count(parameters, "timeout", 0),
        {one["name"]: count for one in outputs if (count := _count(_parameters(one), "classification", 0))},
    )
    return request, _form(outputs, binary=_member(parameters, "binary_data_output", bool, False))


def encode(response: InferResponse, form: Form) -> Body:
    """Return the body of an answer. What is not finite is null in its JSON, which has no such numbers."""
    outputs: list[dict[str, Any]] = []
    blobs = [b""]
    for tensor in response.outputs:
        array = tensor.array
        record: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": array.shape}
        if form.chosen.get(tensor.name, form.binary):
            blobs.append(datatypes.encode(array, tensor.datatype))
            record["parameters"] = {"binary_data_size": len(blobs[-1])}
        elif tensor.datatype == BYTES:
            record["data"] = [text.decode(errors="replace") for text in array.ravel().tolist()]
        else:
            record["data"] = array.ravel()
        outputs.append(record)
    answer: dict[str, Any] = {"id": response.id} if response.id else {}
    answer |= {"model_name": response.model, "model_version": response.version, "outputs": outputs}
    blobs[0] = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if len(blobs) == 1:
        return Body(blobs[0], None)
    return Body(b"".join(blobs), len(blobs[0]))


def _form(outputs: list[dict[str, Any]], *, binary: bool) -> Form:
    chosen = {}
    for output in outputs:
        parameters = _parameters(output)
        _no_shared_memory(parameters)
        if "binary_data" in parameters:
            chosen[output["name"]] = _member(parameters, "binary_data", bool)
    return Form(binary, chosen)


def _input(record: dict[str, Any], blobs: Blobs, model: str) -> Tensor:
    name, datatype = _member(record, "name", str), _member(record, "datatype", str)
    shape = _member(record, "shape", list)
    if not set(map(type, shape)) <= {int}:  # numbers that no size can be are refused with the shape
        raise _wrong("shape", int)
    parameters = _parameters(record)
    _no_shared_memory(parameters)
    binary, data = "binary_data_size" in parameters, "data" in record
    if binary == data:
        raise _refused(f"{_ONE_SOURCE}. But {'more than one' if data else 'no'} field is set")
    if binary:
        blob = blobs.take(name, _count(parameters, "binary_data_size"))
        return Tensor(name, datatype, datatypes.decode(name, datatype, shape, blob, model=model))
    return Tensor(name, datatype, _from_json(name, datatype, shape, _member(record, "data", list), model))


def _from_json(name: str, datatype: str, shape: list[int], data: list[Any], model: str) -> Array:
    values, kinds = _flat(data)
    if datatype == BYTES:
        _check_elements(kinds, "O")
        return datatypes.from_strings(name, shape, [text.encode() for text in values], model=model)
    count = datatypes.count_elements(name, datatype, shape, model=model)
    if datatype in _BINARY_ONLY:
        raise _refused(f"receiving {datatype} data via JSON is not supported. Send it as bytes for input '{name}'")
    found = datatypes.NUMPY[datatype]
    _check_elements(kinds, found.kind)
    if len(values) != count:
        sizes = f"Expected {count * found.itemsize}, got {len(values) * found.itemsize}"
        raise _refused(f"input byte size mismatch for input '{name}' for model '{model}'. {sizes}")
    try:
        with np.errstate(over="ignore"):  # a number beyond FP32 is infinite in it
            return np.array(values, found).reshape(shape)
    except OverflowError:
        raise _refused(f"Unable to parse 'data': a number of input '{name}' is outside {datatype}") from None


def _flat(values: list[Any]) -> tuple[list[Any], set[type]]:
    """Return the elements of an array of arrays of one depth, any other as it is, and their types."""
    while (kinds := set(map(type, values))) == {list}:
        values = list(chain.from_iterable(values))
    return values, kinds


def _check_elements(found: set[type], kind: str) -> None:
    allowed, word = _ELEMENTS[kind]
    if not found <= allowed:
        raise _refused(f"Unable to parse 'data': attempt to access JSON non-{word} as {word}")


def _no_shared_memory(parameters: dict[str, Any]) -> None:
    if "shared_memory_region" in parameters:
        named = str(parameters["shared_memory_region"])[:100]
        raise RefusedError(Reason.NOT_FOUND, f"Unable to find shared memory region: '{named}'")


def _parameters(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _member(record, "parameters", dict, {})
    return found


_REQUIRED: Any = object()


def _member(record: dict[str, Any], key: str, kind: type, default: Any = _REQUIRED) -> Any:
    found = record.get(key, default)
    if found is _REQUIRED:
        raise _refused(f"Unable to parse '{key}': attempt to access non-existing object member '{key}'")
    if type(found) is not kind:
        raise _wrong(key, kind)
    return found


def _count(record: dict[str, Any], key: str, default: Any = _REQUIRED) -> int:
    found: int = _member(record, key, int, default)
    if found < 0:
        raise _wrong(key, int)
    return found


def _object(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _wrong(where, dict)
    return value


def _wrong(key: str, kind: type) -> RefusedError:
    word = _WORDS[kind]
    return _refused(f"Unable to parse '{key}': attempt to access JSON non-{word} as {word}")


def _refused(message: str) -> RefusedError:
    return RefusedError(Reason.INVALID, message)
