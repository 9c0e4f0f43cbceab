"""The request log: its lines hold what happened, and nothing that a client wrote."""

import asyncio
import contextlib
import http.client
import json
import logging
import re
import socket

import pytest

from toolchain.serve.counters import Times
from toolchain.serve.http.app import Application
from toolchain.serve.http.request import Request
from toolchain.serve.limits import Limits
from toolchain.serve.proto import INFERENCE
from toolchain.serve.request_log import FORMS, JsonLines, RequestLog, current

SECRET = "hunter2-S3CRET"
FIELDS = ["time", "id", "method", "path", "status", "rows", "tokens", "queue_ms", "compute_ms", "duration_ms"]


@pytest.fixture
def lines(caplog, monkeypatch):
    """Return a function that gives the lines of the service's log so far, as `toolchain serve` writes them.

    Records of other loggers are not among them: gRPC's library may report calls of a test before, whose loop has ended.
    """
    monkeypatch.setattr(logging.getLogger("toolchain"), "propagate", True)
    caplog.set_level(logging.INFO)
    return lambda: [JsonLines().format(record) for record in caplog.records if record.name.startswith("toolchain")]


def test_a_line_has_what_the_service_did(lines):
    ticks = iter([0, 9_000_000])
    with RequestLog("json", clock=lambda: next(ticks)).request("POST", "/classify") as entry:
        current().rows, current().tokens, current().times = 2, 31, Times(1_000_000, 2_000_000, 3_000_000, 500_000)
        entry.status = 200
    (line,) = map(json.loads, lines())
    assert list(line) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert [line[key] for key in FIELDS[2:]] == ["POST", "/classify", 200, 2, 31, 1.0, 5.5, 9.0]
    assert FORMS["text"](line) == (
        f"{line['time']} POST /classify 200 id={line['id']} "
        "rows=2 tokens=31 queue_ms=1.0 compute_ms=5.5 duration_ms=9.0"
    )
    assert current() is not entry


def test_requests_have_names_that_their_responses_give(fake, service, lines):
    application = Application(service, requests=RequestLog("json"))
    found = [fake.ask(application, "POST", "/classify", {"text": "a"}).headers["x-request-id"] for _ in range(2)]
    assert [json.loads(line)["id"] for line in lines()] == found
    assert len(set(found)) == 2
    assert "x-request-id" not in fake.ask(Application(service), "GET", "/v2").headers


def test_off_and_a_quiet_service_log_nothing(fake, service, lines, caplog):
    fake.ask(Application(service), "GET", "/v2")
    caplog.set_level(logging.WARNING, "toolchain")
    fake.ask(Application(service, requests=RequestLog("text")), "GET", "/v2")
    assert lines() == []


def test_a_client_that_has_left_is_logged_with_499(fake, service, lines):
    async def leave():
        request = Request("POST", "/classify", {}, limit=9, keep_alive=True)
        task = asyncio.create_task(Application(service, requests=RequestLog("json"))(request))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(leave())
    assert json.loads(lines()[0])["status"] == 499


def test_other_messages_are_json_lines_too(lines):
    try:
        raise ValueError("why\nnot")
    except ValueError:
        logging.getLogger("toolchain").exception('a "bug"\n')
    (line,) = map(json.loads, lines())
    assert (line["level"], line["message"]) == ("error", 'a "bug"\n')
    assert "ValueError: why\nnot" in line["exception"]


# Each request has the secret in another place. `Host: x` and so on stand in `raw_request`.
REQUESTS = [
    ("POST", "/classify", json.dumps({"text": SECRET}), {}, 200),
    ("POST", f"/classify?key={SECRET}", json.dumps({"text": "a"}), {}, 200),
    (
        "POST",
        "/classify",
        json.dumps({"text": "a"}),
        {"Authorization": f"Bearer {SECRET}", "X-Request-Id": SECRET},
        200,
    ),
    ("POST", "/classify", json.dumps({SECRET: "a"}), {}, 400),
    ("POST", "/classify", f'{{"text": "{SECRET}', {}, 400),
    ("POST", "/classify", SECRET * 3, {"Content-Encoding": "gzip"}, 400),
    ("POST", "/classify", json.dumps({"text": SECRET * 20}), {}, 400),
    ("POST", "/v2/models/sentiment/infer", json.dumps({"id": SECRET, "inputs": [{"name": SECRET}]}), {}, 400),
    ("GET", f"/v2/models/{SECRET}/config", "", {}, 404),
    ("GET", f"/{SECRET}", "", {}, 404),
    ("GET", f"/%0d%0a%22{SECRET}", "", {}, 404),
    ("OPTIONS", "/classify", "", {"Origin": SECRET}, 403),
]


def send(address, method, path, body, headers):
    with contextlib.closing(http.client.HTTPConnection(address, timeout=20)) as client:
        client.request(method, path, body.encode(), headers)
        return client.getresponse().status


def send_raw(address, data):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 20) as client:
        client.sendall(data)
        return client.recv(100)


@pytest.mark.parametrize("form", ["json", "text"])
def test_neither_log_nor_errors_hold_anything_that_a_client_wrote(fake, lines, caplog, capfd, form):
    service = fake.FakeService(limits=Limits(max_characters=100))
    with fake.running(service, requests=RequestLog(form)) as address:
        for *request, status in REQUESTS:
            assert send(address, *request) == status
        assert send_raw(address, f"GET / {SECRET}\r\n\r\n".encode()).startswith(b"HTTP/1.1 400")
        service.failure = ValueError("a bug")
        assert send(address, "POST", "/classify", json.dumps({"text": SECRET}), {}) == 500
    found = lines()
    assert SECRET not in "\n".join([*map(JsonLines().format, caplog.records), *capfd.readouterr()])
    logged = [line for line in found if "internal error" not in line]
    assert len(logged) == len(REQUESTS) + 2
    assert not any("\n" in line for line in found)
    if form == "json":
        statuses = [json.loads(line)["status"] for line in logged]
        assert statuses == [*(status for *_, status in REQUESTS), 400, 500]
        assert {json.loads(line)["path"] for line in logged} == {"/classify", "/v2/models/sentiment/infer", None}


def test_calls_over_grpc_are_logged(by_path, lines, caplog):
    wire, double = by_path("grpc_wire"), by_path("serve_double").Double()

    async def scenario():
        async with wire.serving(double, requests=RequestLog("json"), metadata=(("authorization", SECRET),)) as client:
            await client.call("ServerLive")
            await client.call("ModelInfer", wire.text(SECRET.encode(), id=SECRET))
            await client.outcome("ModelInfer", wire.text(model_name=SECRET))

    asyncio.run(scenario())
    found = [json.loads(line) for line in lines()]
    paths = [f"/{INFERENCE}/{method}" for method in ("ServerLive", "ModelInfer", "ModelInfer")]
    assert [(one["method"], one["path"], one["status"]) for one in found] == [
        ("gRPC", path, status) for path, status in zip(paths, (200, 200, 404), strict=True)
    ]
    assert SECRET not in "\n".join(map(JsonLines().format, caplog.records))
