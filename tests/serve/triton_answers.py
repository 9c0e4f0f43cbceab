"""What a real Triton 2.51 answers to about 90 requests, right and wrong, and where ours differs on purpose.

Recorded from a Triton whose ensemble `sentiment` takes TEXT, whose `classifier` takes ids. Ours is one model that
takes either, so all are asked of `sentiment`. What is compared is the status and the heart of the message.
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
    """A request over HTTP, Triton's status, and a phrase of its answer."""

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


def asked(*inputs: Any, **members: Any) -> dict[str, Any]:
    return {"inputs": inputs, **members}


def ids(values: list[Any], mask: list[Any], shape: tuple[int, int] | None = None) -> dict[str, Any]:
    columns = {"input_ids": values, "attention_mask": mask}
    return asked(
        *(
            {"name": name, "shape": shape or (1, len(data)), "datatype": "INT64", "data": data}
            for name, data in columns.items()
        )
    )


def behind(
    blob: bytes,
    status: int,
    phrase: str = "",
    *,
    size: int | None = None,
    length: Any = None,
    tensor: Any = None,
    **members: Any,
) -> Http:
    """Return a request whose tensor follows its JSON as bytes."""
    parameters = {"parameters": {"binary_data_size": len(blob) if size is None else size}}
    head = json.dumps(asked({**(tensor or text("data")), **parameters}, **members)).encode()
    return infer(head + blob, status, phrase, Inference_Header_Content_Length=len(head) if length is None else length)


MEMBER = "Unable to parse '{0}': attempt to access non-existing object member '{0}'"
SIGNED = "attempt to access JSON non-signed-integer as signed-integer"
BATCH_NOTE = "Expected [-1,1], got {}. NOTE: Setting a non-zero max_batch_size"
NO_SUCH = "Request for unknown model: 'nope' is not found"
NO_NINE = "Request for unknown model: 'sentiment' version 9 is not found"
NO_CONTROL = "explicit model load / unload is not allowed"
LOGITS = {"name": "LOGITS"}

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
    "OK json": infer(asked(text(), id="a1"), 200, '"id":"a1"'),
    "OK + params": infer(
        asked(text(), outputs=[LOGITS | {"parameters": {"classification": 1}}]),
        200,
        '"datatype":"BYTES","shape":[1,1],"data":["',
    ),
    "GET infer": get(INFER, 405, "Method Not Allowed"),
    "unknown model": post("/v2/models/nope/infer", asked(text()), 404, NO_SUCH),
    "unknown version": post("/v2/models/sentiment/versions/9/infer", asked(text()), 404, NO_NINE),
    "bad version": post("/v2/models/sentiment/versions/abc/infer", asked(text()), 404, "Not Found"),
    "empty body": infer(b"", 200),
    "bad json": infer(b"{not json", 500, "failed to parse the request JSON buffer"),
    "json array": infer(b"[]", 500, MEMBER.format("inputs")),
    "json null": infer(b"null", 500, MEMBER.format("inputs")),
    "no inputs": infer({}, 500, MEMBER.format("inputs")),
    "inputs not array": infer({"inputs": 5}, 500, "Unable to parse 'inputs': attempt to access JSON non-array as arra"),
    "inputs []": infer(
        asked(),
        400,
        "[request id: <id_unknown>] expected 1 inputs but got 0 inputs for model "
        "'sentiment'. Got input(s) [], but missing required input(s) ['TEXT']",
    ),
    "id not string": infer(asked(text(), id=5), 500, "Unable to parse 'id': attempt to access JSON non-string as str"),
    "missing name": infer(asked(text("name")), 500, MEMBER.format("name")),
    "missing shape": infer(asked(text("shape")), 500, MEMBER.format("shape")),
    "missing datatype": infer(asked(text("datatype")), 500, MEMBER.format("datatype")),
    "missing data": infer(
        asked(text("data")),
        400,
        "Input must set only one of the following fields: 'data', "
        "'binary_data_size' in 'parameters', 'shared_memory_region' in 'parameters'. But no field",
    ),
    "wrong input name": infer(asked(text(name="TXT")), 400, "unexpected inference input 'TXT' for model 'sentiment'"),
    "extra input": infer(asked(text(), text(name="X")), 400, "expected 1 inputs but got 2 inputs for model"),
    "dup input": infer(asked(text(), text()), 400, "input 'TEXT' already exists in request"),
    "wrong dtype": infer(
        asked(text(datatype="INT32", data=[3])),
        400,
        "inference input 'TEXT' data-type is 'INT32', but model 'sentiment' expects 'BYTES'",
    ),
    "bogus dtype": infer(asked(text(datatype="WAT")), 400, "invalid datatype for input TEXT"),
    "dtype BYTES w/ ints": infer(asked(text(data=[3])), 500, "attempt to access JSON non-string as string"),
    "wrong rank": infer(asked(text(shape=[1])), 400, BATCH_NOTE.format("[1]")),
    "wrong dim": infer(asked(text(shape=[1, 2], data=["a", "b"])), 400, BATCH_NOTE.format("[1,2]")),
    "neg dim": infer(asked(text(shape=[-1, 1])), 500, "Unable to parse 'shape'"),
    "huge dim": infer(asked(text(shape=[2**40, 2**40])), 400, BATCH_NOTE.format("[1099511627776,1099511627776]")),
    "zero batch": infer(asked(text(shape=[0, 1], data=[])), 400, "expected 1 string elements for inference input"),
    "too few elements": infer(
        asked(text(shape=[2, 1])),
        400,
        "expected 2 string elements for inference input 'TEXT' for model 'sentiment', got 1",
    ),
    "too many elements": infer(
        asked(text(data=["a", "b"])),
        400,
        "unexpected number of string elements 2 for inference input 'TEXT' for model 'sentiment', expecting 1",
    ),
    "batch > max": infer(
        asked(text(shape=[65, 1], data=["a"] * 65)), 400, "inference request batch-size must be <= 64 for 'sentiment'"
    ),
    "unknown output": infer(
        asked(text(), outputs=[{"name": "zzz"}]), 400, "unexpected inference output 'zzz' for model 'sentiment'"
    ),
    "output no name": infer(asked(text(), outputs=[{}]), 500, MEMBER.format("name")),
    "mixed batch dims": infer(
        asked(ids([1, 2, 3], [])["inputs"][0], ids([], [1] * 6, (2, 3))["inputs"][1]),
        400,
        "batch size does not match other inputs for",
    ),
    "mismatched seq (backend error)": infer(ids([1, 2, 3], [1, 1, 1, 1]), 500, "Failed to process the request(s)"),
    "id out of vocab (backend error)": infer(ids([1, 99_999_999], [1, 1]), 500, "Failed to process the request(s)"),
    "one input missing": infer(asked(ids([1, 2, 3], [])["inputs"][0]), 400, "expected 2 inputs but got 1 inputs"),
    "float in int tensor": infer(ids([1.5, 2], [1, 1]), 500, SIGNED),
    "str in int tensor": infer(ids(["a", 2], [1, 1]), 500, SIGNED),
    "nested data ok": infer(ids([[1, 2]], [[1, 1]], (1, 2)), 200, '"datatype":"FP32","shape":[1,2]'),
    "bin OK": behind(HI, 200, '"datatype":"FP32","shape":[1,2],"data":['),
    "bin OK bin out": behind(HI, 200, '"binary_data_size":8', outputs=[LOGITS | {"parameters": {"binary_data": True}}]),
    "bin truncated string": behind(HI[:-1], 400, "expecting string of length 2 but only 1 bytes available"),
    "bin lying length": behind(LYING, 400, "expecting string of length 1000 but only 2 bytes available"),
    "bin size > body": behind(
        HI, 400, "unexpected size for input 'TEXT', expecting 994 additional bytes for model", size=1000
    ),
    "bin size < blob": behind(HI, 400, "unexpected additional input data for model 'sentiment'", size=3),
    "bin hdr too short": behind(HI, 500, "failed to parse the request JSON buffer", length=5),
    "bin hdr > body": behind(HI, 400, "inference header size should be in range (0, ", length=99_999),
    "bin hdr not int": behind(HI, 200, length="abc"),
    "bin hdr neg": behind(HI, 400, "inference header size should be in range (0, ", length=-1),
    "bin not utf8": behind(NO_UTF8, 400, "TEXT is not UTF-8"),
    "bin fixed dtype short": behind(
        b"\0" * 12,
        400,
        "input byte size mismatch for input 'input_ids'",
        tensor={"name": "input_ids", "shape": [1, 2], "datatype": "INT64"},
    ),
    "gzip header on plain": infer(asked(text()), 200, Content_Encoding="gzip"),
    "unknown encoding": infer(asked(text()), 501, "Unsupported compression type", Content_Encoding="zstd"),
    "repo index": post("/v2/repository/index", {}, 200, '{"name":"sentiment","version":"1","state":"READY"}'),
    "repo load unknown": post("/v2/repository/models/nope/load", {}, 503, NO_CONTROL),
    "repo unload": post("/v2/repository/models/sentiment/unload", {}, 503, NO_CONTROL),
    "timeout param us": infer(asked(text(), parameters={"timeout": 1}), 503, "Request timeout expired"),
    "unknown parameter": infer(asked(text(), parameters={"foo": "bar"}), 200),
    "shm unreg": infer(
        asked(text("data", parameters={"shared_memory_region": "zz"})), 404, "Unable to find shared memory region: 'zz'"
    ),
}
"""Case -> request and recorded answer."""


class Grpc(NamedTuple):
    """A call, Triton's status, and a phrase of its message."""

    method: str
    request: Any
    status: str
    phrase: str = ""


def call(status: str, phrase: str = "", *, raw: Any = (HI,), tensor: Any = None, **changes: Any) -> Grpc:
    """Return a ModelInfer of one text; a change replaces a field, `tensor` members of its input."""
    inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], **(tensor or {})}]
    fields = {"model_name": "sentiment", "id": "g1", "inputs": inputs, "raw_input_contents": raw, **changes}
    return Grpc("ModelInfer", MESSAGES["inference.ModelInferRequest"](**fields), status, phrase)


def call_ids(status: str, phrase: str, **blobs: bytes) -> Grpc:
    inputs = [{"name": name, "datatype": "INT64", "shape": [1, 2]} for name in blobs]
    return call(status, phrase, inputs=inputs, raw=tuple(blobs.values()))


WRONG = "INVALID_ARGUMENT"
TYPED = {"contents": {"bytes_contents": [b"hi"]}}
BAD_VERSION = "failed to get model version from specified version string 'abc' (details: stol), version should be"
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
"""Case -> call and recorded answer."""


class Differs(NamedTuple):
    """What ours answers instead, and why; a phrase that is not given is Triton's."""

    status: int | str
    why: str
    phrase: str | None = None


THEIR_FAULT = "a request that is wrong is the client's fault: 4xx, so that no client asks again and no alarm is raised"
CHECKED = "checked before the engine, and no traceback with paths of the server in the answer"
COUNTED = "what a client says of its size is held against what it sent before any array is made of it"
NOT_FOUND = "404 says better that there is no such model, and is what all else says of it"
WHOLE = "a body that is no request of the protocol is refused rather than guessed at"

HTTP_DIFFERS = {
    **{
        case: Differs(400, THEIR_FAULT)
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
    "json array": Differs(400, THEIR_FAULT, "failed to parse the request JSON buffer: it is not an object"),
    "json null": Differs(400, THEIR_FAULT, "failed to parse the request JSON buffer: it is not an object"),
    "neg dim": Differs(400, THEIR_FAULT, "Expected dimensions of at least 1, got [-1,1]"),
    "zero batch": Differs(400, COUNTED, "Expected dimensions of at least 1, got [0,1]"),
    "huge dim": Differs(400, COUNTED, f"expected {2**80} string elements for inference input 'TEXT'"),
    "bin size < blob": Differs(400, COUNTED, "incomplete string length indicator for inference input 'TEXT'"),
    "mismatched seq (backend error)": Differs(400, CHECKED, "unexpected shape for input 'attention_mask'"),
    "id out of vocab (backend error)": Differs(400, CHECKED, "input 'input_ids' has the value 99999999, out of range"),
    "root": Differs(200, "the page to try the model", "<!doctype html>"),
    "unknown model ready": Differs(404, NOT_FOUND, NO_SUCH),
    "unknown version ready": Differs(404, NOT_FOUND, NO_NINE),
    "empty body": Differs(400, WHOLE, "failed to parse the request JSON buffer"),
    "bin hdr not int": Differs(400, WHOLE, "inference header size should be in range (0, "),
    "gzip header on plain": Differs(400, WHOLE, "not packed as its Content-Encoding says"),
}
"""Case -> ours."""

GRPC_DIFFERS = {
    "neg dim": Differs(WRONG, "Triton's number is an overflow", "Expected dimensions of at least 1, got [-1,1]"),
    "backend error": Differs(WRONG, CHECKED, "input 'input_ids' has the value 99999999, out of range"),
}
"""Case -> ours."""

NOT_HERE = {
    "max_batch 0 wrong dim": "no model of ours is without a batch",
    "NaN out (json)": "logits that are not finite are a failure of the model; codec.encode writes null for them",
    "content-length huge, no body": "bytes that no client sends: tests/serve/test_server.py",
    "content-length bad": "bytes that no client sends: tests/serve/test_server.py",
    "chunked": "bytes that no client sends: tests/serve/test_server.py",
    "garbage": "bytes that no client sends: tests/serve/test_server.py",
    "70 MiB body": "over the limit of a body: tests/serve/test_http.py",
    "70MiB": "over the limit of a body: tests/serve/test_grpc.py",
    "grpc health": "another protocol: tests/serve/test_grpc.py",
}
"""Recorded, and asked elsewhere or of nothing here."""
