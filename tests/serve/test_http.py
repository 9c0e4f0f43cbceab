"""HTTP as Triton answers it: statuses recorded from Triton 2.51, and where we differ on purpose."""

import asyncio
import gzip
import json
import struct
import zlib

import pytest

from toolchain.serve.http import Application
from toolchain.serve.limits import Limits
from toolchain.serve.protocol import Reason, RefusedError

INFER = "/v2/models/sentiment/infer"
TOKEN = "a-token-of-some-length"


@pytest.fixture
def ask(fake, service):
    """Ask a fresh application of the service; keywords are the application's."""
    return lambda *request, **options: fake.ask(Application(service, **options), *request)


def text(**changes):
    """A request with one text; what is changed to None is left out."""
    tensor = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["hi"], **changes}
    return {"inputs": [{key: value for key, value in tensor.items() if value is not None}]}


def tokens(ids, mask, **changes):
    columns = {"input_ids": ids, "attention_mask": mask}
    return {"inputs": [{"name": name, "shape": [1, len(data)], "datatype": "INT64", "data": data, **changes}
                       for name, data in columns.items()]}  # fmt: skip


def sent_as_bytes(blob, *, size=None, length=None):
    tensor = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES"}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(blob) if size is None else size}}]})
    return head.encode() + blob, {"Inference-Header-Content-Length": str(len(head) if length is None else length)}


GETS = [
    ("/v2/health/live", 200), ("/v2/health/ready", 200), ("/v2/health/foo", 404), ("/v2", 200),
    ("/v2/models/sentiment/ready", 200), ("/v2/models/sentiment/versions/1/ready", 200), ("/v2/models/nope/ready", 400),
    ("/v2/models/sentiment/versions/9/ready", 400), ("/v2/models/sentiment/versions/abc/ready", 404),
    ("/v2/models/nope", 404), ("/v2/models/sentiment/versions/9", 404), ("/v2/models/nope/config", 404),
    ("/v2/models/nope/stats", 400), (INFER, 405), ("/v2/models/sentiment", 200), ("/v2/models/sentiment/config", 200),
    ("/v2/models/sentiment/stats", 200), ("/v2/models/stats", 200),
]  # fmt: skip
POSTS = [
    ("/v2/health/live", {}, 405), ("/v2/models/nope/infer", text(), 404),
    ("/v2/models/sentiment/versions/9/infer", text(), 404), ("/v2/models/sentiment/versions/abc/infer", text(), 404),
    ("/v2/models/sentiment/versions/1/infer", text(), 200), ("/v2/repository/index", {}, 200),
    ("/v2/repository/models/nope/load", {}, 503), ("/v2/repository/models/sentiment/unload", {}, 503),
]  # fmt: skip
# Body, Triton's status, and a phrase of its message that ours has too.
INFERENCES = {
    "json": (text() | {"id": "a1"}, 200, '"id":"a1"'),
    "class": (text() | {"outputs": [{"name": "LOGITS", "parameters": {"classification": 1}}]}, 200, '["2.000000:0"]'),
    "bad json": (b"{not json", 500, "failed to parse the request JSON buffer"),
    "array": (b"[]", 500, ""),
    "null": (b"null", 500, ""),
    "no inputs": ({}, 500, "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
    "inputs no array": ({"inputs": 5}, 500, "Unable to parse 'inputs': attempt to access JSON non-array as array"),
    "inputs []": ({"inputs": []}, 400, "expected 1 inputs but got 0 inputs for model 'sentiment'"),
    "id": (text() | {"id": 5}, 500, "Unable to parse 'id': attempt to access JSON non-string as string"),
    "no name": (text(name=None), 500, "non-existing object member 'name'"),
    "no shape": (text(shape=None), 500, "non-existing object member 'shape'"),
    "no datatype": (text(datatype=None), 500, "non-existing object member 'datatype'"),
    "no data": (text(data=None), 400, "Input must set only one of the following fields: 'data', 'binary_data_size'"),
    "wrong name": (text(name="TXT"), 400, "unexpected inference input 'TXT' for model 'sentiment'"),
    "extra": ({"inputs": text()["inputs"] + text(name="X")["inputs"]}, 400, "expected 1 inputs but got 2 inputs"),
    "twice": ({"inputs": text()["inputs"] * 2}, 400, "input 'TEXT' already exists in request"),
    "dtype": (text(datatype="INT32", data=[3]), 400, "data-type is 'INT32', but model 'sentiment' expects 'BYTES'"),
    "bogus": (text(datatype="WAT"), 400, "invalid datatype for input TEXT"),
    "ints": (text(data=[3]), 500, "attempt to access JSON non-string as string"),
    "rank": (text(shape=[1]), 400, "Expected [-1,1], got [1]. NOTE: Setting a non-zero max_batch_size"),
    "dim": (text(shape=[1, 2], data=["a", "b"]), 400, "Expected [-1,1], got [1,2]"),
    "neg": (text(shape=[-1, 1]), 500, ""),
    "huge": (text(shape=[2**40, 2**40]), 400, ""),
    "empty": (text(shape=[0, 1], data=[]), 400, ""),
    "few": (text(shape=[2, 1]), 400, "expected 2 string elements for inference input 'TEXT'"),
    "many": (text(data=["a", "b"]), 400, "unexpected number of string elements 2 for inference input 'TEXT'"),
    "batch": (text(shape=[65, 1], data=["a"] * 65), 400, "batch-size must be <= 64 for 'sentiment'"),
    "output": (text() | {"outputs": [{"name": "z"}]}, 400, "unexpected inference output 'z' for model 'sentiment'"),
    "nameless": (text() | {"outputs": [{}]}, 500, "non-existing object member 'name'"),
    "rows": ({"inputs": [tokens([1, 2], [1, 1])["inputs"][0],
                         {"name": "attention_mask", "shape": [2, 1], "datatype": "INT64", "data": [1, 1]}]}, 400,
             "input 'attention_mask' batch size does not match other inputs"),
    "lengths": (tokens([1, 2, 3], [1, 1, 1, 1]), 500, ""),
    "vocabulary": (tokens([1, 99999999], [1, 1]), 500, ""),
    "one missing": ({"inputs": tokens([1], [1])["inputs"][:1]}, 400, "missing required input(s) ['attention_mask']"),
    "float": (tokens([1.5, 2], [1, 1]), 500, "Unable to parse 'data'"),
    "string": (tokens(["a", 2], [1, 1]), 500, "attempt to access JSON non-signed-integer as signed-integer"),
    "nested": (tokens([[1, 2]], [[1, 1]], shape=[1, 2]), 200, ""),
    "memory": (text(data=None, parameters={"shared_memory_region": "zz"}), 404,
               "Unable to find shared memory region: 'zz'"),
    "unknown parameter": (text() | {"parameters": {"foo": "bar"}}, 200, ""),
}  # fmt: skip
OK = struct.pack("<I", 2) + b"hi"
BINARY = {
    "ok": (sent_as_bytes(OK), 200, ""),
    "cut": (sent_as_bytes(OK[:-1]), 400, "expecting string of length 2 but only 1 bytes available"),
    "lying": (sent_as_bytes(struct.pack("<I", 1000) + b"hi"), 400, "string of length 1000 but only 2 bytes available"),
    "size above body": (sent_as_bytes(OK, size=1000), 400, "expecting 994 additional bytes for model 'sentiment'"),
    "size below blob": (sent_as_bytes(OK, size=3), 400, ""),
    "header short": (sent_as_bytes(OK, length=5), 500, "failed to parse the request JSON buffer"),
    "header long": (sent_as_bytes(OK, length=99999), 400, "inference header size should be in range (0, "),
    "header below 0": (sent_as_bytes(OK, length=-1), 400, "inference header size should be in range (0, "),
    "no UTF-8": (sent_as_bytes(struct.pack("<I", 2) + b"\xff\xfe"), 400, "TEXT is not UTF-8"),
}


def as_ours(status):
    """Triton's 500 is for requests that are wrong: ours are 4xx."""
    return 400 if status == 500 else status


@pytest.mark.parametrize(("path", "status"), GETS)
def test_get(ask, path, status):
    # For a model that does not exist, readiness and statistics are 400 there; 404 says it better.
    allowed = {status, 404} if status == 400 else {status}
    assert ask("GET", path).status in allowed


@pytest.mark.parametrize(("path", "body", "status"), POSTS)
def test_post(ask, path, body, status):
    assert ask("POST", path, body).status == status


@pytest.mark.parametrize("case", INFERENCES)
def test_inference(ask, case):
    body, status, phrase = INFERENCES[case]
    answer = ask("POST", INFER, body)
    assert (answer.status, answer.headers["content-type"]) == (as_ours(status), "application/json"), answer.body
    assert phrase in (answer.body.decode() if status == 200 else answer.json["error"])


@pytest.mark.parametrize("case", BINARY)
def test_inference_with_bytes(ask, case):
    (body, headers), status, phrase = BINARY[case]
    answer = ask("POST", INFER, body, headers)
    assert answer.status == as_ours(status)
    assert phrase in answer.body.decode()


@pytest.mark.parametrize("headers", [{}, {"Inference-Header-Content-Length": "abc"}])
def test_an_empty_body_is_no_request_though_triton_takes_it(ask, headers):
    assert ask("POST", INFER, b"", headers).status == 400


def test_json_holds_no_number_that_json_has_not(ask):
    answer = ask("POST", INFER, text() | {"outputs": [{"name": "LOGITS"}]})
    assert answer.json["outputs"][0]["data"] == [2.0, None]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_both_ways(ask, encoding, pack):
    many = text(shape=[60, 1], data=["word"] * 60) | {"id": "i"}
    plain = ask("POST", INFER, many)
    headers = {"Content-Encoding": encoding, "Accept-Encoding": f"br, {encoding};q=0.5"}
    packed = ask("POST", INFER, pack(json.dumps(many).encode()), headers)
    assert packed.headers["content-encoding"] == encoding
    assert len(packed.body) < len(plain.body)
    assert zlib.decompress(packed.body, wbits=47) == plain.body


@pytest.mark.parametrize("accepted", ["", "br", "gzip;q=0", "gzip;q=x", "*"])
def test_nobody_gets_what_was_not_asked_for(ask, accepted):
    answer = ask("GET", "/openapi.json", b"", {"Accept-Encoding": accepted})
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [("zstd", b"", 501), ("gzip, gzip", b"", 501), ("gzip", b"{}", 400), ("gzip", gzip.compress(b"{}")[:-5], 400),
     ("gzip", gzip.compress(b"{}") + b"more", 400), ("gzip", gzip.compress(bytes(1 << 21)), 413)],
)  # fmt: skip
def test_what_cannot_be_unpacked(ask, encoding, body, status):
    assert ask("POST", INFER, body, {"Content-Encoding": encoding}).status == status


@pytest.mark.parametrize(("body", "headers"), [(b"", {"Content-Length": "2000000"}), ((b"x" * 600_000,) * 3, {})])
def test_a_body_too_large_is_refused_before_its_end(ask, body, headers):
    answer = ask("POST", "/classify", body, headers)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert "1048576 bytes" in answer.json["error"]


def test_the_token(ask):
    assert ask("POST", "/classify", {"text": "a"}, {"Authorization": f"bearer {TOKEN}"}, token=TOKEN).status == 200
    for wrong in ("", TOKEN, f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer "):
        answer = ask("POST", "/classify", {"text": "a"}, {"Authorization": wrong}, token=TOKEN)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    for path in ("/v2", "/metrics", "/v2/models/nope", "/nowhere"):
        assert ask("GET", path, b"", {}, token=TOKEN).status == 401
    for path in ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
        assert ask("GET", path, b"", {}, token=TOKEN).status == 200


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/sentiment/ready"])
def test_not_ready(ask, service, path):
    service.drain()
    assert ask("GET", path).status == 503
    assert ask("GET", "/v2/health/live").status == 200
    assert ask("POST", "/v2/repository/index").json[0]["state"] == "UNAVAILABLE"


def test_too_busy_says_when_to_ask_again(ask, service):
    service.failure = RefusedError(Reason.UNAVAILABLE, "Exceeds maximum queue size")
    answer = ask("POST", INFER, text())
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json == {"error": "Exceeds maximum queue size"}


def test_with_no_engine_left_it_asks_to_be_started_anew(ask, service):
    service.alive = service.ready = False
    assert ask("GET", "/v2/health/live").status == 503


def test_a_bug_tells_the_client_nothing(ask, service, caplog, monkeypatch):
    monkeypatch.setattr("toolchain.serve.http.log.propagate", True)
    service.failure = ValueError("/secret/path")
    answer = ask("POST", "/classify", {"text": "a"})
    assert (answer.status, answer.json) == (500, {"error": "internal error"})
    assert "/secret/path" in caplog.text


def test_a_client_that_leaves_is_not_answered(fake, service):
    async def gone():
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/classify", "headers": []}
    asyncio.run(Application(service)(scope, gone, send))
    assert sent == []


def test_head_and_allow(ask):
    assert ask("HEAD", "/v2").status == 200
    assert ask("DELETE", "/v2").headers["allow"] == "HEAD, GET"
    assert ask("GET", "/classify").headers["allow"] == "POST"


ONE = {"label": "2", "score": 0.75, "scores": {"2": 0.75, "other": 0.25}}


@pytest.mark.parametrize(
    ("texts", "body", "expected"),
    [(1, {"text": "ab"}, ONE), (1, {"text": ["ab", "ab"]}, [ONE, ONE]), (2, {"text": "a", "pair": "b"}, ONE),
     (2, {"text": ["a"], "pair": ["b"]}, [ONE])],
)  # fmt: skip
def test_classify(ask, service, texts, body, expected):
    service.texts = texts
    answer = ask("POST", "/classify", body)
    assert (answer.status, answer.json) == (200, expected)


@pytest.mark.parametrize(
    ("texts", "body", "message"),
    [(1, {}, "'text' is missing"), (1, {"text": 5}, "'text' must be"), (1, {"text": []}, "'text' must be"),
     (1, {"text": ["a", None]}, "'text' must be"), (1, {"text": "a", "pair": "b"}, "'pair' is not taken"),
     (1, {"text": "a", "txt": "b"}, "unknown key 'txt'"), (2, {"text": "a"}, "'pair' is missing"),
     (2, {"text": ["a", "b"], "pair": ["b"]}, "two lists of the same length"), (1, ["a"], "not an object"),
     (2, {"text": "a", "pair": ["b"]}, "two lists of the same length")],
)  # fmt: skip
def test_classify_says_what_is_wrong(ask, service, texts, body, message):
    service.texts = texts
    answer = ask("POST", "/classify", body)
    assert answer.status == 400
    assert message in answer.json["error"]


def test_limits_are_the_services(fake):
    application = Application(fake.FakeService(limits=Limits(max_body_bytes=20)))
    assert fake.ask(application, "POST", "/classify", {"text": "a" * 20}).status == 413
