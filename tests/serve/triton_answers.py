"""Responses of a real Triton 2.51 to about 90 valid and invalid requests, and where the service differs on purpose.

They were recorded from a Triton whose ensemble `sentiment` takes TEXT and whose model `classifier` takes token ids. The
service has one model that takes either, so all requests go to `sentiment`. The status and a phrase are compared.
"""

import json
import struct
from typing import Any, NamedTuple

from toolchain.serve.proto import MESSAGES

INFER = "/v2/models/sentiment/infer"
HI = struct.pack("<I", 2) + b"hi"
LYING = struct.pack("<I", 1000) + b"hi"
NO_UTF8 = struct.pack("<I", 2) + b"\xff\xfe"


class Http(NamedTuple):
    """A request over HTTP, Triton's status, and a phrase of its response."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]
    status: int
    phrase: str


def get(path: str, status: int, phrase: str = "") -> Http:
    return Http("GET", path, b"", {}, status, phrase)


def post(path: str, body: Any, status: int, phrase: str = "", **headers: Any) -> Http:
    blob = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return Http("POST", path, blob, named, status, phrase)


def infer(body: Any, status: int, phrase: str = "", **headers: Any) -> Http:
    return post(INFER, body, status, phrase, **headers)


def text(without: str = "", **changes: Any) -> dict[str, Any]:
    """Return an input of one text; a change replaces a member."""
    tensor = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["hi"], **changes}
    return {key: value for key, value in tensor.items() if key != without}


def body_of(*inputs: Any, **members: Any) -> dict[str, Any]:
    return {"inputs": inputs, **members}


def ids(values: list[Any], mask: list[Any], shape: tuple[int, int] | None = None) -> dict[str, Any]:
    columns = {"input_ids": values, "attention_mask": mask}
    return body_of(
        *(
            {"name": name, "shape": shape or (1, len(data)), "datatype": "INT64", "data": data}
            for name, data in columns.items()
        )
    )


def binary(
    blob: bytes,
    status: int,
    phrase: str = "",
    *,
    size: int | None = None,
    length: Any = None,
    tensor: Any = None,
    **members: Any,
) -> Http:
    """Return a request whose tensor follows its JSON in binary form."""
    parameters = {"parameters": {"binary_data_size": len(blob) if size is None else size}}
    head = json.dumps(body_of({**(tensor or text("data")), **parameters}, **members)).encode()
    return infer(head + blob, status, phrase, Inference_Header_Content_Length=len(head) if length is None else length)


MEMBER = "Unable to parse '{0}': attempt to access non-existing object member '{0}'"
SIGNED = "attempt to access JSON non-signed-integer as signed-integer"
BATCH_NOTE = "Expected [-1,1], got {}. NOTE: Setting a non-zero max_batch_size"
NO_SUCH = "Request for unknown model: 'nope' is not found"
NO_NINE = "Request for unknown model: 'sentiment' version 9 is not found"
NO_CONTROL = "explicit model load / unload is not allowed"
LOGITS = {"name": "LOGITS"}

# Case -> the request and the recorded response.
HTTP = {
    "live": get("/v2/health/live", 200),
    "ready": get("/v2/health/ready", 200),
    "health unknown": get("/v2/health/foo", 404, "Not Found"),
    "meta": get("/v2", 200, '"binary_tensor_data"'),
    "root": get("/", 404, "Not Found"),
    "POST live": post("/v2/health/live", b"", 405, "Method Not Allowed"),
    "model ready": get("/v2/models/sentiment/ready", 200),
    "model ready v1": get("/v2/models/sentiment/versions/1/ready", 200),
    "unknown model ready": get("/v2/models/nope/ready", 400, "Model version not ready"),
    "unknown version ready": get("/v2/models/sentiment/versions/9/ready", 400, "Model version not ready"),
    "bad version ready": get("/v2/models/sentiment/versions/abc/ready", 404, "Not Found"),
    "unknown model meta": get("/v2/models/nope", 404, NO_SUCH),
    "unknown version meta": get("/v2/models/sentiment/versions/9", 404, NO_NINE),
    "unknown model config": get("/v2/models/nope/config", 404, NO_SUCH),
    "unknown stats": get("/v2/models/nope/stats", 400, "requested model 'nope' is not available"),
    "OK json": infer(body_of(text(), id="a1"), 200, '"id":"a1"'),
    "OK + params": infer(
        body_of(text(), outputs=[LOGITS | {"parameters": {"classification": 1}}]),
        200,
        '"datatype":"BYTES","shape":[1,1],"data":["',
    ),
    "GET infer": get(INFER, 405, "Method Not Allowed"),
    "unknown model": post("/v2/models/nope/infer", body_of(text()), 404, NO_SUCH),
    "unknown version": post("/v2/models/sentiment/versions/9/infer", body_of(text()), 404, NO_NINE),
    "bad version": post("/v2/models/sentiment/versions/abc/infer", body_of(text()), 404, "Not Found"),
    "empty body": infer(b"", 200),
    "bad json": infer(b"{not json", 500, "failed to parse the request JSON buffer"),
    "json array": infer(b"[]", 500, MEMBER.format("inputs")),
    "json null": infer(b"null", 500, MEMBER.format("inputs")),
    "no inputs": infer({}, 500, MEMBER.format("inputs")),
    "inputs not array": infer({"inputs": 5}, 500, "Unable to parse 'inputs': attempt to access JSON non-array as arra"),
    "inputs []": infer(
        body_of(),
        400,
        "[request id: <id_unknown>] expected 1 inputs but got 0 inputs for model "
        "'sentiment'. Got input(s) [], but missing required input(s) ['TEXT']",
    ),
    "id not string": infer(
        body_of(text(), id=5), 500, "Unable to parse 'id': attempt to access JSON non-string as str"
    ),
    "missing name": infer(body_of(text("name")), 500, MEMBER.format("name")),
    "missing shape": infer(body_of(text("shape")), 500, MEMBER.format("shape")),
    "missing datatype": infer(body_of(text("datatype")), 500, MEMBER.format("datatype")),
    "missing data": infer(
        body_of(text("data")),
        400,
        "Input must set only one of the following fields: 'data', "
        "'binary_data_size' in 'parameters', 'shared_memory_region' in 'parameters'. But no field",
    ),
    "wrong input name": infer(body_of(text(name="TXT")), 400, "unexpected inference input 'TXT' for model 'sentiment'"),
    "extra input": infer(body_of(text(), text(name="X")), 400, "expected 1 inputs but got 2 inputs for model"),
    "dup input": infer(body_of(text(), text()), 400, "input 'TEXT' already exists in request"),
    "wrong dtype": infer(
        body_of(text(datatype="INT32", data=[3])),
        400,
        "inference input 'TEXT' data-type is 'INT32', but model 'sentiment' expects 'BYTES'",
    ),
    "bogus dtype": infer(body_of(text(datatype="WAT")), 400, "invalid datatype for input TEXT"),
    "dtype BYTES w/ ints": infer(body_of(text(data=[3])), 500, "attempt to access JSON non-string as string"),
    "wrong rank": infer(body_of(text(shape=[1])), 400, BATCH_NOTE.format("[1]")),
    "wrong dim": infer(body_of(text(shape=[1, 2], data=["a", "b"])), 400, BATCH_NOTE.format("[1,2]")),
    "neg dim": infer(body_of(text(shape=[-1, 1])), 500, "Unable to parse 'shape'"),
    "huge dim": infer(body_of(text(shape=[2**40, 2**40])), 400, BATCH_NOTE.format("[1099511627776,1099511627776]")),
    "zero batch": infer(body_of(text(shape=[0, 1], data=[])), 400, "expected 1 string elements for inference input"),
    "too few elements": infer(
        body_of(text(shape=[2, 1])),
        400,
        "expected 2 string elements for inference input 'TEXT' for model 'sentiment', got 1",
    ),
    "too many elements": infer(
        body_of(text(data=["a", "b"])),
        400,
        "unexpected number of string elements 2 for inference input 'TEXT' for model 'sentiment', expecting 1",
    ),
    "batch > max": infer(
        body_of(text(shape=[65, 1], data=["a"] * 65)), 400, "inference request batch-size must be <= 64 for 'sentiment'"
    ),
    "unknown output": infer(
        body_of(text(), outputs=[{"name": "zzz"}]), 400, "unexpected inference output 'zzz' for model 'sentiment'"
    ),
    "output no name": infer(body_of(text(), outputs=[{}]), 500, MEMBER.format("name")),
    "mixed batch dims": infer(
        body_of(ids([1, 2, 3], [])["inputs"][0], ids([], [1] * 6, (2, 3))["inputs"][1]),
        400,
        "batch size does not match other inputs for",
    ),
    "mismatched seq (backend error)": infer(ids([1, 2, 3], [1, 1, 1, 1]), 500, "Failed to process the request(s)"),
    "id out of vocab (backend error)": infer(ids([1, 99_999_999], [1, 1]), 500, "Failed to process the request(s)"),
    "one input missing": infer(body_of(ids([1, 2, 3], [])["inputs"][0]), 400, "expected 2 inputs but got 1 inputs"),
    "float in int tensor": infer(ids([1.5, 2], [1, 1]), 500, SIGNED),
    "str in int tensor": infer(ids(["a", 2], [1, 1]), 500, SIGNED),
    "nested data ok": infer(ids([[1, 2]], [[1, 1]], (1, 2)), 200, '"datatype":"FP32","shape":[1,2]'),
    "bin OK": binary(HI, 200, '"datatype":"FP32","shape":[1,2],"data":['),
    "bin OK bin out": binary(HI, 200, '"binary_data_size":8', outputs=[LOGITS | {"parameters": {"binary_data": True}}]),
    "bin truncated string": binary(HI[:-1], 400, "expecting string of length 2 but only 1 bytes available"),
    "bin lying length": binary(LYING, 400, "expecting string of length 1000 but only 2 bytes available"),
    "bin size > body": binary(
        HI, 400, "unexpected size for input 'TEXT', expecting 994 additional bytes for model", size=1000
    ),
    "bin size < blob": binary(HI, 400, "unexpected additional input data for model 'sentiment'", size=3),
    "bin hdr too short": binary(HI, 500, "failed to parse the request JSON buffer", length=5),
    "bin hdr > body": binary(HI, 400, "inference header size should be in range (0, ", length=99_999),
    "bin hdr not int": binary(HI, 200, length="abc"),
    "bin hdr neg": binary(HI, 400, "inference header size should be in range (0, ", length=-1),
    "bin not utf8": binary(NO_UTF8, 400, "TEXT is not UTF-8"),
    "bin fixed dtype short": binary(
        b"\0" * 12,
        400,
        "input byte size mismatch for input 'input_ids'",
        tensor={"name": "input_ids", "shape": [1, 2], "datatype": "INT64"},
    ),
    "gzip header on plain": infer(body_of(text()), 200, Content_Encoding="gzip"),
    "unknown encoding": infer(body_of(text()), 501, "Unsupported compression type", Content_Encoding="zstd"),
    "repo index": post("/v2/repository/index", {}, 200, '{"name":"sentiment","version":"1","state":"READY"}'),
    "repo load unknown": post("/v2/repository/models/nope/load", {}, 503, NO_CONTROL),
    "repo unload": post("/v2/repository/models/sentiment/unload", {}, 503, NO_CONTROL),
    "timeout param us": infer(body_of(text(), parameters={"timeout": 1}), 503, "Request timeout expired"),
    "unknown parameter": infer(body_of(text(), parameters={"foo": "bar"}), 200),
    "shm unreg": infer(
        body_of(text("data", parameters={"shared_memory_region": "zz"})),
        404,
        "Unable to find shared memory region: 'zz'",
    ),
}


class Grpc(NamedTuple):
    """A call, Triton's status, and a phrase of its message."""

    method: str
    request: Any
    status: str
    phrase: str = ""


def call(status: str, phrase: str = "", *, raw: Any = (HI,), tensor: Any = None, **changes: Any) -> Grpc:
    """Return a ModelInfer of one text; a change replaces a field, and `tensor` replaces members of its input."""
    inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], **(tensor or {})}]
    fields = {"model_name": "sentiment", "id": "g1", "inputs": inputs, "raw_input_contents": raw, **changes}
    return Grpc("ModelInfer", MESSAGES["inference.ModelInferRequest"](**fields), status, phrase)


def call_ids(status: str, phrase: str, **blobs: bytes) -> Grpc:
    inputs = [{"name": name, "datatype": "INT64", "shape": [1, 2]} for name in blobs]
    return call(status, phrase, inputs=inputs, raw=tuple(blobs.values()))


WRONG = "INVALID_ARGUMENT"
TYPED = {"contents": {"bytes_contents": [b"hi"]}}
BAD_VERSION = "failed to get model version from specified version string 'abc' (details: stol), version should be"
# Case -> the call and the recorded response.
GRPC = {
    "ok raw": call("OK"),
    "ok typed": call("OK", tensor=TYPED, raw=()),
    "unknown model": call("NOT_FOUND", NO_SUCH, model_name="nope"),
    "unknown version": call("NOT_FOUND", NO_NINE, model_version="9"),
    "bad version": call(WRONG, BAD_VERSION, model_version="abc"),
    "no inputs": call(
        WRONG,
        "[request id: g1] expected 1 inputs but got 0 inputs for model 'sentiment'. Got input(s) "
        "[], but missing required input(s) ['TEXT']",
        inputs=[],
        raw=(),
    ),
    "missing raw": call(WRONG, "unable to find data for input tensor 'TEXT' for model 'sentiment' in request", raw=()),
    "too many raw": call("OK", raw=(HI, HI)),
    "typed+raw": call(
        WRONG,
        "contents field must not be specified when using raw_input_contents for 'TEXT' for model 'sentiment'",
        tensor=TYPED,
    ),
    "wrong name": call(WRONG, "unexpected inference input 'X' for model 'sentiment'", tensor={"name": "X"}),
    "wrong dtype": call(
        WRONG,
        "[request id: g1] inference input 'TEXT' data-type is 'INT32', but model 'sentiment' expects 'BYTES'",
        tensor={"datatype": "INT32"},
        raw=(b"\0" * 4,),
    ),
    "bogus dtype": call(WRONG, "data-type is '<invalid>'", tensor={"datatype": "WAT"}),
    "wrong rank": call(WRONG, BATCH_NOTE.format("[1]"), tensor={"shape": [1]}),
    "neg dim": call(WRONG, "expected 4294967295 string elements", tensor={"shape": [-1, 1]}),
    "batch > max": call(
        WRONG,
        "[request id: g1] inference request batch-size must be <= 64 for 'sentiment'",
        tensor={"shape": [65, 1]},
        raw=(HI * 65,),
    ),
    "truncated str": call(WRONG, "expecting string of length 2 but only 1 bytes available", raw=(HI[:-1],)),
    "lying len": call(WRONG, "expecting string of length 1000 but only 2 bytes available", raw=(LYING,)),
    "unknown output": call(WRONG, "unexpected inference output 'zz' for model 'sentiment'", outputs=[{"name": "zz"}]),
    "one input missing": call_ids(
        WRONG, "Got input(s) ['input_ids'], but missing required input(s) ['attention_mask']", input_ids=b"\0" * 16
    ),
    "short raw int64": call_ids(WRONG, "Expected 16, got 8", input_ids=b"\0" * 8, attention_mask=b"\0" * 16),
    "backend error": call_ids(
        "INTERNAL",
        "Failed to process the request(s)",
        input_ids=struct.pack("<qq", 1, 99_999_999),
        attention_mask=struct.pack("<qq", 1, 1),
    ),
    "not utf8 (TritonError INVALID_ARG)": call(WRONG, "TEXT is not UTF-8", raw=(NO_UTF8,)),
    "timeout 1us": call("UNAVAILABLE", "Request timeout expired", parameters={"timeout": {"int64_param": 1}}),
    "meta unknown": Grpc("ModelMetadata", {"name": "nope"}, "NOT_FOUND", NO_SUCH),
    "ready unknown": Grpc("ModelReady", {"name": "nope"}, "OK"),
    "config unknown": Grpc("ModelConfig", {"name": "nope"}, "NOT_FOUND", NO_SUCH),
    "stats unknown": Grpc("ModelStatistics", {"name": "nope"}, WRONG, "requested model 'nope' is not available"),
    "ready bad version": Grpc("ModelReady", {"name": "sentiment", "version": "abc"}, WRONG, BAD_VERSION),
    "load (mode none)": Grpc("RepositoryModelLoad", {"model_name": "sentiment"}, "UNAVAILABLE", NO_CONTROL),
}


class Differs(NamedTuple):
    """The service's own status and phrase, and why it differs. Without a phrase, Triton's is expected."""

    status: int | str
    why: str
    phrase: str | None = None


CLIENT_ERROR = "an invalid request is the client's mistake: with 4xx no client retries and no alarm is raised"
CHECKED = "the request is checked before the engine, and the response has no traceback with paths of the server"
COUNTED = "a size that a client names is compared with the data before an array of that size is made"
NOT_FOUND = "404 is clearer for an unknown model, and every other path responds with it"
STRICT = "a body that is not a request of the protocol is refused"

# Case -> the difference.
HTTP_DIFFERS = {
    **{
        case: Differs(400, CLIENT_ERROR)
        for case in (
            "bad json",
            "no inputs",
            "inputs not array",
            "id not string",
            "missing name",
            "missing shape",
            "missing datatype",
            "dtype BYTES w/ ints",
            "output no name",
            "float in int tensor",
            "str in int tensor",
            "bin hdr too short",
        )
    },
    "json array": Differs(400, CLIENT_ERROR, "failed to parse the request JSON buffer: it is not an object"),
    "json null": Differs(400, CLIENT_ERROR, "failed to parse the request JSON buffer: it is not an object"),
    "neg dim": Differs(400, CLIENT_ERROR, "Expected dimensions of at least 1, got [-1,1]"),
    "zero batch": Differs(400, COUNTED, "Expected dimensions of at least 1, got [0,1]"),
    "huge dim": Differs(400, COUNTED, f"expected {2**80} string elements for inference input 'TEXT'"),
    "bin size < blob": Differs(400, COUNTED, "incomplete string length indicator for inference input 'TEXT'"),
    "mismatched seq (backend error)": Differs(400, CHECKED, "unexpected shape for input 'attention_mask'"),
    "id out of vocab (backend error)": Differs(
        400, CHECKED, "input 'input_ids' has the value 99999999, which is outside the range"
    ),
    "root": Differs(200, "the page to try the model", "<!doctype html>"),
    "unknown model ready": Differs(404, NOT_FOUND, NO_SUCH),
    "unknown version ready": Differs(404, NOT_FOUND, NO_NINE),
    "empty body": Differs(400, STRICT, "failed to parse the request JSON buffer"),
    "bin hdr not int": Differs(400, STRICT, "inference header size should be in range (0, "),
    "gzip header on plain": Differs(400, STRICT, "does not match its Content-Encoding"),
}

# Case -> the difference.
GRPC_DIFFERS = {
    "neg dim": Differs(WRONG, "Triton's number is an overflow", "Expected dimensions of at least 1, got [-1,1]"),
    "backend error": Differs(WRONG, CHECKED, "input 'input_ids' has the value 99999999, which is outside the range"),
}

# Recorded cases that are tested elsewhere or do not apply.
NOT_HERE = {
    "max_batch 0 wrong dim": "every model of the service has a batch dimension",
    "NaN out (json)": "logits that are not finite are a failure of the model: tests/serve/batching/test_worker.py",
    "content-length huge, no body": "invalid HTTP: tests/serve/http/test_server.py",
    "content-length bad": "invalid HTTP: tests/serve/http/test_server.py",
    "chunked": "invalid HTTP: tests/serve/http/test_server.py",
    "garbage": "invalid HTTP: tests/serve/http/test_server.py",
    "70 MiB body": "above the limit of a body: tests/serve/http/test_app.py",
    "70MiB": "above the limit of a message: tests/serve/grpc/test_servicer.py",
    "grpc health": "another protocol: tests/serve/grpc/test_servicer.py",
}
