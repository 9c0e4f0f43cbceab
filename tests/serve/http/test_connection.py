"""HTTP connections as bytes: order of responses, half-closed clients, and silent ones that give way."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
import threading

import pytest

from toolchain.data.tasks import Task
from toolchain.heads import find_head
from toolchain.serve.limits import SPARE_PLACES

ALIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = ALIVE.replace(b"Host", b"Connection: close\r\nHost")
METADATA = ALIVE.replace(b"/health/live", b"")


def post(text):
    body = b'{"text": "%s"}' % text
    return b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def connect(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), 30)


def everything(client):
    found = b""
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while data := client.recv(65536):
            found += data
    return found


def statuses(found):
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", found)]


@pytest.fixture
def at(fake, service):
    with fake.running(service) as address:
        yield address


@pytest.mark.parametrize("cut", [0, 1, 60, 10_000])
def test_pipelined_requests_are_answered_in_order(at, cut):
    """Each text has its number as its length, and the label is that length. The first `cut` bytes come apart."""
    data = b"".join(post(b"a" * number) for number in range(1, 300)) + LAST
    with connect(at) as client:
        client.sendall(data[:cut])
        client.sendall(data[cut:])
        found = everything(client)
    assert [int(label) for label in re.findall(rb'"label":"(\d+)"', found)] == list(range(1, 300))


def test_what_is_not_http_is_refused_after_the_requests_before_it(at):
    with connect(at) as client:
        client.sendall(post(b"a") + b"garbage\r\n\r\n" + post(b"b"))
        assert statuses(everything(client)) == [200, 400]


def test_nothing_is_answered_after_the_last_request(at):
    with connect(at) as client:
        client.sendall(LAST + METADATA)
        assert statuses(everything(client)) == [200]


@pytest.mark.parametrize(
    ("data", "expected"), [(post(b"a"), 200), (post(b"a") * 3, 200), (post(b"abc")[:-3], 400), (ALIVE[:9], None)]
)
def test_a_half_closed_client_gets_its_responses(at, data, expected):
    with connect(at) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        found = [status for status in statuses(everything(client)) if status != 100]
    assert set(found) == ({expected} if expected else set())
    assert len(found) == data.count(b"POST")


def test_silent_clients_give_way_and_health_has_places_of_its_own(fake, service, monkeypatch):
    monkeypatch.setattr("toolchain.serve.http.server.MAX_CONNECTIONS", 4)
    started = threading.Semaphore(0)

    class Gate:
        async def wait(self):
            started.release()
            await asyncio.Event().wait()

    with fake.running(service) as address, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(address)) for _ in range(40)]
        silent[-1].sendall(METADATA)
        assert silent[-1].recv(12) == b"HTTP/1.1 200"
        assert silent[0].recv(1) == b""
        service.gate = Gate()
        for _ in range(3):  # three quarters of the places
            stack.enter_context(connect(address)).sendall(post(b"a"))
            assert started.acquire(timeout=30)
        crowd = [stack.enter_context(connect(address)) for _ in range(2 * SPARE_PLACES)]
        for sent, status in ((LAST, 200), (METADATA, 503)):
            with connect(address) as client:
                client.sendall(sent)
                assert statuses(everything(client)) == [status]
        assert crowd[0].recv(1) == b""
        assert service.cancelled == 0


@pytest.mark.parametrize("tls", [False, True])
def test_those_who_read_no_large_response_give_way_before_memory_does(fake, certificate, monkeypatch, tls):
    monkeypatch.setattr("toolchain.serve.http.connection.MAX_UNREAD_BYTES", 1 << 20)
    task = Task(name="t", text_columns=("a", "b"), label_column="l")
    service = fake.FakeService(head=find_head(task, (), possible=("embedding",), width=3072))
    body = json.dumps({"input": ["a"] * 1024}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    wrap = ssl.create_default_context(cafile=certificate.cert).wrap_socket if tls else lambda client, **_: client
    with fake.running(service, tls=certificate if tls else None) as address, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(wrap(connect(address), server_hostname="localhost")) for _ in range(4)]
        for client in clients:
            client.sendall(head + body)
            began = client.recv(4096)
            assert began.startswith(b"HTTP/1.1 200")
        whole = int(re.search(rb"content-length: (\d+)", began)[1])
        clients[-1].sendall(LAST)
        found = [everything(client) for client in clients]
    assert [len(one) > whole - 4096 for one in found] == [False, False, False, True]
    assert found[-1].endswith(b"\r\n\r\n")
