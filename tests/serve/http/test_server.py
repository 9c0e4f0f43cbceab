"""The HTTP server over a real socket: Triton's client, invalid clients, and TLS."""

import asyncio
import contextlib
import http.client
import re
import socket
import ssl
import subprocess
import threading
import time

import numpy as np
import pytest
import tritonclient.http as triton

from toolchain.errors import InputError
from toolchain.serve.limits import HEAD_BYTES
from toolchain.serve.tls import Tls

INFER = "/v2/models/sentiment/infer"


@pytest.fixture
def at(fake, service):
    with fake.running(service) as address:
        yield address


def exchange(address, data):
    """Send bytes as they are, and return everything that the server sends until it closes the connection."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 20) as client:
        client.settimeout(20)
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b""))
    return b""


@pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_works(at, packing, binary):
    with triton.InferenceServerClient(at) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("sentiment", "1")
        assert client.get_model_repository_index()[0]["state"] == "READY"
        texts = triton.InferInput("TEXT", [2, 1], "BYTES")
        texts.set_data_from_numpy(np.array([["ab"], ["héllo"]], object), binary_data=binary)
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("LABEL", "LOGITS")]
        found = client.infer(
            "sentiment",
            [texts],
            outputs=outputs,
            request_id="q7",
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
        assert found.get_response()["id"] == "q7"
        assert found.as_numpy("LABEL").tolist() in ([["short"]] * 2, [[b"short"]] * 2, [["long"]] * 2, [[b"long"]] * 2)
        assert found.as_numpy("LOGITS")[:, 0].tolist() == [2, 5]


def test_tritons_client_raises_the_text_of_a_refusal(at):
    with triton.InferenceServerClient(at) as client:
        with pytest.raises(triton.InferenceServerException, match="'nope' is not found"):
            client.get_model_metadata("nope")
        with pytest.raises(triton.InferenceServerException, match="load / unload is not allowed"):
            client.unload_model("sentiment")


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ALIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" % INFER.encode()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (POST + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\n\r\n{}", 400),
        (POST + b"Content-Length: abc\r\n\r\n{}", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999999\r\n\r\n", 413),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\n" + CHUNKED + b"{}", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: identity, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (POST + b"Content-Encoding: gzip\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", 501),
        (POST + b"Inference-Header-Content-Length: 2\r\n" * 2 + b"Content-Length: 2\r\n\r\n{}", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", 400),
        (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (POST + b"Content-Length: " + b"0" * 5000 + b"2\r\n\r\n{}", 400),
        (POST + CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", 400),
        (POST + CHUNKED + (b"10000\r\n" + bytes(1 << 16) + b"\r\n") * 20, 413),
    ],
    ids=[
        "chunked",
        "plain",
        "no length",
        "TLS",
        "huge",
        "bytes",
        "both lengths",
        "version",
        "version 2",
        "no host",
        "two hosts",
        "host with a blank",
        "two codings",
        "two encodings",
        "two lengths of the head",
        "proxy",
        "many headers",
        "length of 5000 digits",
        "length of 5000 zeros",
        "many trailers",
        "endless",
    ],
)
def test_invalid_http_is_refused(at, data, status):
    assert exchange(at, data).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("first", [True, False])
def test_a_token_beside_another_one_is_refused(fake, service, first):
    headers = [b"Authorization: Bearer a-token-of-some-length\r\n", b"Authorization: Bearer another\r\n"]
    with fake.running(service, token="a-token-of-some-length") as address:
        data = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s%s\r\n" % tuple(headers[:: 1 if first else -1])
        assert exchange(address, data).startswith(b"HTTP/1.1 401 ")


def test_the_host_of_the_whole_address_counts(at):
    data = b"GET http://attacker.example/v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert exchange(at, data).startswith(b"HTTP/1.1 403 ")


OFFER = b"Connection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
CLASSIFY = b"POST /classify HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("body", "status"), [(b'{"text": "a"}', b"200"), (ALIVE, b"400")])
def test_an_offer_to_upgrade_is_ignored_and_its_body_is_no_request(at, apart, body, status):
    """With `apart` the body follows when the server has asked for it, so that it is a packet of its own."""
    head = CLASSIFY + OFFER + b"Content-Length: %d\r\n" % len(body) + b"Expect: 100-continue\r\n" * apart + b"\r\n"
    host, port = at.split(":")
    with socket.create_connection((host, int(port)), 20) as client:
        client.sendall(head if apart else head + body + ALIVE)
        if apart:
            assert client.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body + ALIVE)
        found = b"".join(iter(lambda: client.recv(65536), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", found) == [status, b"200"]


@pytest.mark.parametrize("trailer", [b"Authorization: Bearer a-token-of-some-length", b"Content-Encoding: br"])
def test_a_trailer_is_not_a_header(fake, service, trailer):
    data = CLASSIFY + b"Connection: close\r\n%s\r\n" + CHUNKED + b'd\r\n{"text": "a"}\r\n0\r\n%s\r\n\r\n'
    with fake.running(service, token="a-token-of-some-length") as address:
        given = b"Authorization: Bearer a-token-of-some-length" if b"br" in trailer else b"X: y"
        status = 200 if b"br" in trailer else 401
        assert exchange(address, data % (given, trailer)).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("head", [b"GET /" + b"a" * (1 << 20), b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 20)])
def test_an_endless_head_closes_the_connection(at, head):
    assert len(head) > HEAD_BYTES
    assert exchange(at, head)[:13] in (b"", b"HTTP/1.1 400 ")


def test_the_server_survives_random_bytes(at):
    generator = np.random.default_rng(3)
    for _ in range(50):
        exchange(at, POST[: generator.integers(len(POST))] + generator.bytes(200) + b"\r\n\r\n")
    assert exchange(at, b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1.1 200"
    )


def test_the_request_of_a_client_that_leaves_is_cancelled(at, service):
    started = threading.Event()

    class Gate:
        async def wait(self):
            started.set()
            await asyncio.Event().wait()

    service.gate = Gate()
    host, port = at.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b'POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{"text":"a"}')
        assert started.wait(20)
    deadline = time.monotonic() + 20
    while not service.cancelled and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.cancelled == 1


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            cert,
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl cannot make a certificate on this machine")
    return Tls(cert, key)


def test_the_server_uses_tls_with_a_certificate(fake, service, tls):
    with fake.running(service, tls=tls) as address:
        context = ssl.create_default_context(cafile=str(tls.cert))
        client = http.client.HTTPSConnection(address, context=context, timeout=20)
        client.request("GET", "/v2/health/ready")
        assert client.getresponse().status == 200
        client.close()


def test_clients_that_do_not_end_their_tls_handshake_give_way(fake, service, tls, monkeypatch):
    monkeypatch.setattr("toolchain.serve.http.server.MAX_CONNECTIONS", 4)
    context = ssl.create_default_context(cafile=str(tls.cert))
    with fake.running(service, tls=tls) as address, contextlib.ExitStack() as stack:
        host, port = address.split(":")
        silent = [stack.enter_context(socket.create_connection((host, int(port)), 20)) for _ in range(40)]
        assert silent[0].recv(1) == b""
        client = http.client.HTTPSConnection(address, context=context, timeout=20)
        client.request("GET", "/v2/health/ready", headers={"Connection": "close"})
        assert client.getresponse().status == 200
        client.close()


def test_a_wrong_certificate_is_refused(fake, service, tmp_path):
    (tmp_path / "cert.pem").write_text("not PEM")
    files = Tls(tmp_path / "cert.pem", tmp_path / "cert.pem")
    with pytest.raises(InputError, match=r"cert.pem: .*--tls-cert"), fake.running(service, tls=files):
        pass
