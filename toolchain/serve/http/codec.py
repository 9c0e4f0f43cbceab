"""Conversion of HTTP bodies to requests, and of responses to HTTP bodies.

`POST /v2/models/NAME/infer` takes JSON. Its tensors are in the JSON, or in binary form after it: the header
`Inference-Header-Content-Length` gives the length of the JSON, and each tensor's `binary_data_size` gives its number of
bytes. Binary tensors follow each other in the order in which the JSON lists them. `POST /classify` takes plain JSON
with one text or several.

Sources: KServe's V2 protocol; Triton's extensions for binary tensors, classification and parameters. Where Triton 2.51
responds with 500 to wrong JSON, this service responds with 400 and the same text.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from toolchain.serve.checks import shown
from toolchain.serve.datatypes import BYTES, NUMPY, Declared, to_bytes
from toolchain.serve.limits import MAX_DIMENSIONS, MAX_TENSORS
from toolchain.serve.protocol import InferRequest, InferResponse, Tensor, invalid, no_shared_memory, too_large

if TYPE_CHECKING:
    from toolchain.data.rows import Text

# A JSON object of a client, whose members are not checked yet.
JsonObject = dict[str, Any]

LENGTH_HEADER = b"inference-header-content-length"

# Keys of a body of /classify: the text, and the second text of a pair. OTHER_KEYS has the names that clients of Hugging
# Face's servers use for them.
CLASSIFY_KEYS = ("text", "pair")
OTHER_KEYS = {"inputs": "text", "text_pair": "pair"}

# Python type -> Triton's name of the JSON type.
_JSON_TYPES = {list: "array", dict: "object", str: "string", bool: "boolean", int: "unsigned-integer"}

# Kind of a numpy dtype -> the Python types that its elements may have in parsed JSON, and Triton's name
# of the JSON type.
_ELEMENTS: dict[str, tuple[set[type], str]] = {
    "b": ({bool}, "boolean"),
    "u": ({int}, "unsigned-integer"),
    "i": ({int}, "signed-integer"),
    "f": ({int, float}, "number"),
    "O": ({str}, "string"),
}

_BINARY_ONLY = ("FP16", "BF16")
_ONE_SOURCE = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'"
)


@dataclass(frozen=True)
class OutputForm:
    """Which outputs of a response are sent in binary form; the others are sent in JSON."""

    # Whether outputs that are not in `chosen` are in binary form.
    binary: bool = False
    # Output -> whether it is in binary form.
    chosen: dict[str, bool] = field(default_factory=dict)


def split(body: bytes, json_length: bytes | None) -> tuple[bytes | memoryview, memoryview]:
    """Return the JSON of a body, and the bytes after it.

    `json_length` is the value of LENGTH_HEADER. If it is None, the whole body is JSON.

    Raises:
        RefusedError: `json_length` is not a number from 1 to the length of the body.
    """
    if json_length is None:
        return body, memoryview(b"")
    # int() raises an error for more than 4,300 digits, and no body has a length of 20 digits.
    size = int(json_length) if json_length.isdigit() and len(json_length) < 20 else 0
    if not 0 < size <= len(body):
        got = json_length[:20].decode("ascii", "replace")
        raise invalid(f"inference header size should be in range (0, {len(body)}), got: {got}")
    view = memoryview(body)
    return view[:size], view[size:]


def decode(
    body: bytes, *, model: str, version: str, json_length: bytes | None = None
) -> tuple[InferRequest, OutputForm]:
    """Return the inference request in a body, and the form in which it asks for its outputs.

    `json_length` is the value of LENGTH_HEADER. Whether the request fits the model is checked later.

    Raises:
        RefusedError: the body is not a request of the protocol.
    """
    text, binary = split(body, json_length)
    record = load(text)
    parameters = _parameters(record)
    given, outputs = _objects(record, "inputs"), _objects(record, "outputs", [])
    refuse_repeated(text, [one for found in (record, *given, *outputs) for one in (found, _parameters(found))])
    inputs = []
    for one in given:
        tensor, binary = _input(one, binary, model)
        inputs.append(tensor)
    if binary:
        raise invalid(f"unexpected additional input data for model '{model}'")
    request = InferRequest(
        model,
        tuple(inputs),
        tuple(_member(one, "name", str) for one in outputs),
        version,
        _member(record, "id", str, ""),
        _count(parameters, "timeout", 0),
        {one["name"]: count for one in outputs if (count := _count(_parameters(one), "classification", 0))},
    )
    return request, _output_form(outputs, binary=_member(parameters, "binary_data_output", bool, False))


def encode(response: InferResponse, form: OutputForm) -> tuple[bytes, int | None]:
    """Return the body of a response, and the length of its JSON in bytes.

    The length is None if no binary tensors follow the JSON. In JSON, a number that is not finite becomes null.
    """
    outputs: list[JsonObject] = []
    blobs = [b""]
    for tensor in response.outputs:
        array = tensor.array
        record: JsonObject = {"name": tensor.name, "datatype": tensor.datatype, "shape": array.shape}
        if form.chosen.get(tensor.name, form.binary):
            blobs.append(to_bytes(array, tensor.datatype))
            record["parameters"] = {"binary_data_size": len(blobs[-1])}
        elif tensor.datatype == BYTES:
            record["data"] = [text.decode(errors="replace") for text in array.ravel().tolist()]
        else:
            record["data"] = array.ravel()
        outputs.append(record)
    body: JsonObject = {"id": response.id} if response.id else {}
    body |= {"model_name": response.model, "model_version": response.version, "outputs": outputs}
    body |= {"parameters": parameters} if (parameters := response.parameters) else {}
    blobs[0] = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join(blobs), len(blobs[0]) if len(blobs) > 1 else None


def by_row(rows: Iterable[Any]) -> Any:
    """Return rows as a list that is already JSON, for orjson to insert into a larger value.

    Each row is serialised by its own call, because orjson holds Python's global lock during a call.
    """
    return orjson.Fragment(b"[%b]" % b",".join(map(orjson.dumps, rows)))


def decode_classify(body: bytes, texts_per_row: int, max_rows: int) -> tuple[list["Text"], bool]:
    """Return the rows in a body of /classify, and whether the body gives them as lists.

    A row is a tuple of `texts_per_row` texts.

    Raises:
        RefusedError: the body is malformed, has more than `max_rows` rows, or lacks a text that the model needs.
    """
    given = load(body)
    refuse_repeated(body, [given])
    record = {OTHER_KEYS.get(key, key): value for key, value in given.items()}
    required = CLASSIFY_KEYS[:texts_per_row]
    unknown = [key for key in record if key not in CLASSIFY_KEYS]
    if unknown or len(record) < len(given):
        wrong = f"unknown key '{shown(unknown[0])}'" if unknown else "the same text is given under two keys"
        raise invalid(f"{wrong}: give {' and '.join(required)}")
    if "pair" in record and "pair" not in required:
        raise invalid("'pair' is not allowed: this model takes one text")
    columns = [read_texts(record, key, max_rows) for key in required]
    is_list = isinstance(record["text"], list)
    if any(isinstance(record[key], list) != is_list for key in required) or len({*map(len, columns)}) > 1:
        raise invalid("'text' and 'pair' must be two texts, or two lists of the same length")
    return list(zip(*columns, strict=True)), is_list


def refuse_repeated(text: bytes | memoryview, objects: list[JsonObject]) -> None:
    """Refuse JSON in which an object has the same key twice.

    A parser keeps only the last of the two values, and a proxy may have checked the first. `objects` are the objects
    that were parsed from `text`. If `text` has more colons than they have members, it is parsed once more, to look for
    repeated keys.
    """
    text = bytes(text)
    if text.count(b":") == sum(map(len, objects)):
        return  # more colons are repeated keys, colons in texts, or members of objects that are not in `objects`

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            raise invalid("a key is given twice in the same object")

    try:  # `len` instead of int(), which raises an error for more than 4,300 digits
        json.loads(text, object_pairs_hook=check, parse_int=len, parse_float=len)
    except RecursionError:
        raise invalid("it is nested too deeply") from None


def read_texts(record: JsonObject, key: str, max_rows: int) -> list[str]:
    """Return the texts under a key, whose value is one text or a list of texts.

    Raises:
        RefusedError: the key is missing, its value is something else, or it has more than `max_rows` texts.
    """
    if key not in record:
        raise invalid(f"'{key}' is missing: give a text, or a list of texts")
    texts = record[key] if isinstance(record[key], list) else [record[key]]
    if len(texts) > max_rows:
        raise too_large(f"the list has {len(texts)} rows, but a request can have {max_rows}: send several requests")
    if not texts or not all(type(text) is str for text in texts):
        raise invalid(f"'{key}' must be a text, or a list of texts")
    return texts


def _output_form(outputs: list[JsonObject], *, binary: bool) -> OutputForm:
    chosen = {}
    for output in outputs:
        parameters = _tensor_parameters(output)
        if "binary_data" in parameters:
            chosen[output["name"]] = _member(parameters, "binary_data", bool)
    return OutputForm(binary, chosen)


def _input(record: JsonObject, binary: memoryview, model: str) -> tuple[Tensor, memoryview]:
    """Return the tensor that `record` describes, and the bytes that are left for the inputs after it.

    `binary` has the bytes after the JSON that earlier inputs have not used. It is not copied.
    """
    name, datatype = _member(record, "name", str), _member(record, "datatype", str)
    shape = _member(record, "shape", list)
    if not set(map(type, shape)) <= {int}:  # `Declared` refuses integers below 1
        _refuse_type("shape", int)
    parameters, declared = _tensor_parameters(record), Declared(name, datatype, shape, model)
    is_binary, has_data = "binary_data_size" in parameters, "data" in record
    if is_binary == has_data:
        raise invalid(f"{_ONE_SOURCE}. But {'more than one' if has_data else 'no'} field is set")
    if has_data:
        return _from_json(declared, _member(record, "data", list)), binary
    size = _count(parameters, "binary_data_size")
    if (missing := size - len(binary)) > 0:
        raise invalid(f"unexpected size for input '{name}', expecting {missing} additional bytes for model '{model}'")
    return declared.from_bytes(binary[:size]), binary[size:]


def _from_json(declared: Declared, data: list[Any]) -> Tensor:
    """Return the tensor of an input whose elements are given in the JSON."""
    name, datatype = declared.name, declared.datatype
    values, types = _flatten(declared, data)
    if datatype == BYTES:
        _check_elements(types, "O")
        return declared.from_strings([text.encode() for text in values])
    if datatype in _BINARY_ONLY:
        raise invalid(f"receiving {datatype} data via JSON is not supported. Send it as bytes for input '{name}'")
    if datatype in NUMPY:  # `from_numbers` refuses any other datatype
        _check_elements(types, NUMPY[datatype].kind)
    return declared.from_numbers(values)


def _flatten(declared: Declared, values: list[Any]) -> tuple[list[Any], set[type]]:
    """Return the elements of nested lists in one list, and the set of their Python types.

    If the lists are not all nested equally deep, the deeper lists remain among the elements.
    """
    for _ in range(MAX_DIMENSIONS):
        declared.check_size(len(values))
        if (types := set(map(type, values))) != {list}:
            return values, types
        values = list(chain.from_iterable(values))
    raise invalid(
        f"Unable to parse 'data': the lists of input '{declared.name}' are nested deeper than {MAX_DIMENSIONS}"
    )


def _check_elements(types: set[type], kind: str) -> None:
    allowed, name = _ELEMENTS[kind]
    if not types <= allowed:
        raise invalid(f"Unable to parse 'data': attempt to access JSON non-{name} as {name}")


def load(data: bytes | memoryview) -> JsonObject:
    """Return the JSON object in a body.

    Raises:
        RefusedError: the body is not JSON, or not an object.
    """
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise invalid("failed to parse the request JSON buffer: it is not JSON") from None
    if type(record) is not dict:
        raise invalid("failed to parse the request JSON buffer: it is not an object")
    return record


_REQUIRED: Any = object()


def _objects(record: JsonObject, key: str, default: Any = _REQUIRED) -> list[JsonObject]:
    """Return the value of a key: a list of objects that describe input or output tensors.

    If the key is missing, return `default`, or refuse the request if there is no default.
    """
    values: list[JsonObject] = _member(record, key, list, default)
    if len(values) > MAX_TENSORS:
        raise invalid(f"expected at most {MAX_TENSORS} {key} but got {len(values)} {key}")
    if any(type(value) is not dict for value in values):
        _refuse_type(key, dict)
    return values


def _member(record: JsonObject, key: str, kind: type, default: Any = _REQUIRED) -> Any:
    """Return the value of a key in a JSON object. It must have exactly the type `kind`.

    If the key is missing, return `default`, or refuse the request if there is no default.
    """
    value = record.get(key, default)
    if value is _REQUIRED:
        raise invalid(f"Unable to parse '{key}': attempt to access non-existing object member '{key}'")
    if type(value) is not kind:
        _refuse_type(key, kind)
    return value


def _parameters(record: JsonObject) -> JsonObject:
    parameters: JsonObject = _member(record, "parameters", dict, {})
    return parameters


def _tensor_parameters(record: JsonObject) -> JsonObject:
    parameters = _parameters(record)
    if "shared_memory_region" in parameters:
        raise no_shared_memory(parameters["shared_memory_region"])
    return parameters


def _count(record: JsonObject, key: str, default: Any = _REQUIRED) -> int:
    count: int = _member(record, key, int, default)
    if count < 0:
        _refuse_type(key, int)
    return count


def _refuse_type(key: str, kind: type) -> NoReturn:
    name = _JSON_TYPES[kind]
    raise invalid(f"Unable to parse '{key}': attempt to access JSON non-{name} as {name}")
