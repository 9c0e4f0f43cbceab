"""The HTTP application: routes, compression, refusals, the token and /classify.

test_conformance.py compares the responses with those of a real Triton.
"""

import gzip
import json
import zlib

import pytest

from toolchain.serve.http.app import Application
from toolchain.serve.http.request import Request
from toolchain.serve.limits import Limits
from toolchain.serve.protocol import Reason, RefusedError

INFER = "/v2/models/sentiment/infer"
TOKEN = "a-token-of-some-length"


@pytest.fixture
def ask(fake, service):
    """Return a function that sends a request to a new application; keywords are the application's."""
    return lambda *request, **options: fake.ask(Application(service, **options), *request)


def text(**changes):
    """Return a request with one text; a change replaces a member of its tensor."""
    return {"inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["hi"], **changes}]}


@pytest.mark.parametrize("version", ["", "/versions/1"])
@pytest.mark.parametrize("what", ["", "/ready", "/config", "/stats"])
def test_the_model_has_a_path_with_and_without_its_version(ask, version, what):
    assert ask("GET", f"/v2/models/sentiment{version}{what}").status == 200
    assert ask("POST", f"/v2/models/sentiment{version}/infer", text()).status == 200
    assert ask("GET", "/v2/models/stats").json["model_stats"]


def test_a_logit_that_is_not_finite_is_null(ask):
    answer = ask("POST", INFER, text() | {"outputs": [{"name": "LOGITS"}]})
    assert answer.json["outputs"][0]["data"] == [2.0, None]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_both_directions_are_compressed(ask, encoding, compress):
    many = text(shape=[60, 1], data=["word"] * 60) | {"id": "i"}
    plain = ask("POST", INFER, many)
    headers = {"Content-Encoding": encoding, "Accept-Encoding": f"br, {encoding};q=0.5"}
    compressed = ask("POST", INFER, compress(json.dumps(many).encode()), headers)
    assert compressed.headers["content-encoding"] == encoding
    assert len(compressed.body) < len(plain.body)
    assert zlib.decompress(compressed.body, wbits=47) == plain.body


@pytest.mark.parametrize("accepted", ["", "br", "gzip;q=0", "gzip;q=x", "*"])
def test_a_response_is_not_compressed_unless_the_client_accepts_it(ask, accepted):
    answer = ask("GET", "/openapi.json", b"", {"Accept-Encoding": accepted})
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("zstd", b"", 501),
        ("gzip, gzip", b"", 501),
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-5], 400),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"more", 400),
        ("gzip", gzip.compress(bytes(1 << 21), mtime=0), 413),
    ],
)
def test_a_body_that_cannot_be_decompressed_is_refused(ask, encoding, body, status):
    assert ask("POST", INFER, body, {"Content-Encoding": encoding}).status == status


@pytest.mark.parametrize(("body", "headers"), [(b"", {"Content-Length": "2000000"}), ((b"x" * 600_000,) * 3, {})])
def test_too_large_a_body_is_refused_before_its_end(ask, body, headers):
    answer = ask("POST", "/classify", body, headers)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert "1048576 bytes" in answer.json["error"]


def test_every_path_but_pages_and_health_needs_the_token(ask):
    assert ask("POST", "/classify", {"text": "a"}, {"Authorization": f"bearer {TOKEN}"}, token=TOKEN).status == 200
    for wrong in ("", TOKEN, f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer "):
        answer = ask("POST", "/classify", {"text": "a"}, {"Authorization": wrong}, token=TOKEN)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    for path in ("/v2", "/metrics", "/v2/models/nope", "/nowhere"):
        assert ask("GET", path, b"", {}, token=TOKEN).status == 401
    for path in ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready", "/health"):
        assert ask("GET", path, b"", {}, token=TOKEN).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("attacker.example", 403),
        ("attacker.example:8000", 403),
        ("127.0.0.1.attacker.example.", 403),
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.7", 200),
        ("Demo.localhost", 200),
        ("x", 200),
    ],
)
def test_a_local_service_without_a_token_answers_under_local_names_only(ask, host, status):
    for path in ("/v2", "/info", "/docs"):
        assert ask("GET", path, b"", {"Host": host}).status == status
    assert ask("GET", "/v2", b"", {"Host": host}, public=True).status == 200
    assert ask("GET", "/v2", b"", {"Host": host, "Authorization": f"Bearer {TOKEN}"}, token=TOKEN).status == 200
    assert ask("GET", "/health", b"", {"Host": host}).status == 200


def test_a_page_of_another_site_cannot_send_requests(ask):
    for site, status in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
        assert ask("POST", "/classify", {"text": "a"}, {"Sec-Fetch-Site": site}).status == status
        assert ask("GET", "/metrics", b"", {"Sec-Fetch-Site": site}).status == 200


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://attacker.example", "localhost:8000", 403),
        ("https://attacker.example:8000", "127.0.0.1:8000", 403),
        ("http://localhost:3000", "127.0.0.1:8000", 403),
        ("http://127.0.0.1.attacker.example", "127.0.0.1", 403),
        ("null", "localhost:8000", 403),
        ("file://", "localhost:8000", 403),
        ("http://localhost:3000", "localhost:8000", 200),
        ("http://[::1]:8000", "[::1]", 200),
    ],
)
def test_a_browser_that_names_only_the_origin_cannot_send_another_sites_requests(ask, origin, host, status):
    headers = {"Origin": origin, "Host": host}
    assert ask("POST", "/classify", {"text": "a"}, headers).status == status
    assert ask("GET", "/metrics", b"", headers).status == 200
    assert ask("POST", "/classify", {"text": "a"}, {**headers, "Sec-Fetch-Site": "same-origin"}).status == 200
    assert ask("POST", "/classify", {"text": "a"}, headers, public=True).status == 200
    with_token = {**headers, "Authorization": f"Bearer {TOKEN}"}
    assert ask("POST", "/classify", {"text": "a"}, with_token, token=TOKEN).status == 200


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/sentiment/ready"])
def test_a_draining_service_is_live_but_not_ready(ask, service, path):
    service.drain()
    assert ask("GET", path).status == 503
    assert ask("GET", "/v2/health/live").status == 200
    assert ask("POST", "/v2/repository/index").json[0]["state"] == "UNAVAILABLE"


def test_a_busy_service_says_when_to_try_again(ask, service):
    service.failure = RefusedError(Reason.UNAVAILABLE, "Exceeds maximum queue size")
    answer = ask("POST", INFER, text())
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json == {"error": "Exceeds maximum queue size"}


def test_a_service_whose_engines_have_failed_is_not_live(ask, service):
    service.alive = service.ready = False
    assert ask("GET", "/v2/health/live").status == 503


@pytest.mark.parametrize("field", ["name", "datatype"])
def test_a_refusal_is_short_whatever_it_names(ask, field):
    found = ask("POST", INFER, text(**{field: "n" * 900_000}))
    assert found.status == 400
    assert len(found.body) < 2000


def test_a_path_that_the_model_lacks_is_refused_in_the_form_of_its_clients(ask):
    why = "sentiment is a single-label classifier: it responds to /classify, not to "
    assert ask("POST", "/rerank", b"{}").json == {"error": f"{why}/rerank", "error_type": "validation"}
    assert ask("POST", "/v1/embeddings", b"{}").json["error"]["message"] == f"{why}/v1/embeddings"
    assert ask("POST", "/other", b"{}").json == {"error": "Not Found"}


def test_a_bug_is_logged_and_hidden_from_the_client(ask, service, caplog, monkeypatch):
    monkeypatch.setattr("toolchain.serve.http.app.log.propagate", True)
    service.failure = ValueError("/secret/path")
    answer = ask("POST", "/classify", {"text": "a"})
    assert (answer.status, answer.json) == (500, {"error": "internal error"})
    assert "/secret/path" in caplog.text


def test_head_is_allowed_where_get_is_and_405_names_the_methods(ask):
    assert ask("HEAD", "/v2").status == 200
    assert ask("DELETE", "/v2").headers["allow"] == "HEAD, GET"
    assert ask("GET", "/classify").headers["allow"] == "POST"


def test_a_text_may_be_the_name_of_a_key_and_empty(ask):
    assert ask("POST", "/classify", {"text": ["text", "inputs", ""]}).status == 200


ONE = {"label": "2", "score": 0.75, "scores": {"2": 0.75, "other": 0.25}}


@pytest.mark.parametrize(
    ("texts", "body", "expected"),
    [
        (1, {"text": "ab"}, ONE),
        (1, {"text": ["ab", "ab"]}, [ONE, ONE]),
        (2, {"text": "a", "pair": "b"}, ONE),
        (2, {"text": ["a"], "pair": ["b"]}, [ONE]),
        (1, {"inputs": "ab"}, ONE),
        (2, {"inputs": ["a"], "text_pair": ["b"]}, [ONE]),
    ],
)
def test_classify_returns_an_object_or_a_list_like_its_input(ask, service, texts, body, expected):
    service.texts_per_row = texts
    answer = ask("POST", "/classify", body)
    assert (answer.status, answer.json) == (200, expected)


@pytest.mark.parametrize(
    ("texts", "body", "message"),
    [
        (1, {}, "'text' is missing"),
        (1, {"text": 5}, "'text' must be"),
        (1, {"text": []}, "'text' must be"),
        (1, {"text": ["a", None]}, "'text' must be"),
        (1, {"text": "a", "pair": "b"}, "'pair' is not allowed"),
        (1, {"text": "a", "txt": "b"}, "unknown key 'txt'"),
        (1, {"text": "a", "inputs": "b"}, "given under two keys"),
        (1, b'{"text": "a", "text": "b"}', "given twice in the same object"),
        (1, b'{"text": %s%s, "text": 0}' % (b"[" * 1000, b"]" * 1000), "nested too deeply"),
        (1, b'{"text": NaN}', "not JSON"),
        (1, b'{"text": "\xff"}', "not JSON"),
        (1, b'{"text": "\\ud800"}', "not JSON"),
        (1, b"", "not JSON"),
        (1, {"k" * 100_000: "a"}, f"unknown key '{'k' * 64}...'"),
        (2, {"text": "a"}, "'pair' is missing"),
        (2, {"text": ["a", "b"], "pair": ["b"]}, "two lists of the same length"),
        (1, ["a"], "not an object"),
        (2, {"text": "a", "pair": ["b"]}, "two lists of the same length"),
    ],
)
def test_classify_refuses_other_forms(ask, service, texts, body, message):
    service.texts_per_row = texts
    answer = ask("POST", "/classify", body)
    assert answer.status == 400
    assert message in answer.json["error"]


def test_a_list_of_classify_may_fill_the_queue_and_no_more(fake):
    application = Application(fake.FakeService(limits=Limits(max_queue=64)))
    for rows, status in ((0, 400), (64, 200), (65, 413)):
        assert fake.ask(application, "POST", "/classify", {"text": ["a"] * rows}).status == status


def test_the_limits_are_those_of_the_service(fake):
    application = Application(fake.FakeService(limits=Limits(max_body_bytes=20)))
    assert fake.ask(application, "POST", "/classify", {"text": "a" * 20}).status == 413


def test_a_request_in_a_log_shows_no_token():
    request = Request("GET", "/v2", {b"authorization": f"Bearer {TOKEN}".encode()}, limit=1, keep_alive=True)
    assert TOKEN not in f"{request}{request!r}"
