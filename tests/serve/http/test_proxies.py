"""nginx and HAProxy in front of the service: no request of one client becomes a response of another."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time

import pytest

pytestmark = pytest.mark.slow

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream service {{ server {backend}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service; proxy_http_version 1.1; proxy_request_buffering off;
            proxy_set_header Host localhost; proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 20s
    timeout client 20s
    timeout server 20s
    http-reuse always
frontend front
    bind 127.0.0.1:{port}
    http-request set-header Host localhost
    default_backend service
backend service
    server one {backend}
"""
COMMANDS = {
    "nginx": (NGINX, ("-c", "{file}")),
    "haproxy": (HAPROXY, ("-db", "-f", "{file}")),
}


@pytest.fixture(scope="module")
def backend(fake):
    with fake.running(fake.FakeService()) as address:
        yield address


@pytest.fixture(params=list(COMMANDS), scope="module")
def proxy(request, backend, tmp_path_factory):
    """The address of a proxy that keeps one connection to the service for all clients."""
    command = shutil.which(request.param, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if command is None:
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text, options = COMMANDS[request.param]
    (folder / "conf").write_text(text.format(folder=folder, backend=backend, port=port))
    process = subprocess.Popen([command, *(option.format(file=folder / "conf") for option in options)])
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def post(text, *fields, path=b"/classify"):
    body = b'{"text": "%s"}' % text
    lines = [b"POST %s HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


SMUGGLED = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\n"
OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"0\r\n\r\n" + SMUGGLED

# Requests that proxies and servers have read differently. Each hides a request of its own.
DESYNCHRONISING = {
    "offer to upgrade": HEAD + OFFER + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "offer to upgrade, chunked": HEAD + OFFER + CHUNKED + b"\r\n" + CHUNKS,
    "WebSocket": HEAD.replace(b"POST", b"GET") + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + SMUGGLED,
    "length and chunked": HEAD + b"Content-Length: %d\r\n" % len(CHUNKS) + CHUNKED + b"\r\n" + CHUNKS,
    "chunked, then length": HEAD + CHUNKED + b"Content-Length: %d\r\n\r\n" % len(CHUNKS) + CHUNKS,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "length with a sign": HEAD + b"Content-Length: +%d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "blank before the colon": HEAD + b"Content-Length : %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "tab in chunked": HEAD + b"Transfer-Encoding:\tchunked\r\n\r\n" + CHUNKS,
    "xchunked": HEAD + b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n" + CHUNKS,
    "chunked twice": HEAD + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + CHUNKS,
    "folded": HEAD + b"X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKS,
    "line feeds": (HEAD + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)).replace(b"\r\n", b"\n") + SMUGGLED,
    "chunk size beyond 64 bits": HEAD + CHUNKED + b"\r\n10000000000000000\r\n" + CHUNKS,
    "chunk size with 0x": HEAD + CHUNKED + b"\r\n0x0\r\n\r\n" + SMUGGLED,
    "chunk with an extension": HEAD + CHUNKED + b"\r\n0;a=\n\r\n\r\n" + SMUGGLED,
    "trailer": HEAD + CHUNKED + b"\r\n0\r\nContent-Length: 99\r\nHost: y\r\n\r\n",
    "expectation": HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "body of a GET": HEAD.replace(b"POST", b"GET") + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "half a body": HEAD + b"Content-Length: 99\r\n\r\n" + SMUGGLED,
}


def exchange(port, data, patience_s):
    found = b""
    with socket.create_connection(("127.0.0.1", port), 30) as client, contextlib.suppress(OSError):
        client.settimeout(patience_s)
        client.sendall(data)
        while part := client.recv(65536):
            found += part
    return found


@pytest.mark.parametrize("case", DESYNCHRONISING)
def test_the_next_client_gets_its_own_response(proxy, case):
    found = exchange(proxy, DESYNCHRONISING[case], 0.3)  # many of these connections stay open
    assert b" 500 " not in found[:20]
    for number in range(1, 6):
        answer = exchange(proxy, post(b"a" * number, b"Connection: close"), 30)
        assert re.findall(rb'"label":"(\d+)"', answer) == [b"%d" % number], (case, answer)
