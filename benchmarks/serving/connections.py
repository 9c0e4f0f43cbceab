"""Compare three HTTP/1.1 connection layers by conformance and CPU time: ours, and uvicorn's on httptools and on h11.

A connection layer parses requests from a socket and writes responses to it. Each layer serves an application that
returns the length of the request's body. CPU time is that of the event loop's thread, so that other processes do not
change it. Run: python benchmarks/serving/connections.py
"""

import asyncio
import contextlib
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from toolchain.serve.http.connection import Connection
from toolchain.serve.http.request import Request, Response
from toolchain.serve.places import Places

BODY = b'{"text": "a wonderful film"}'
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OFFER = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n"
REQUESTS, ROUNDS = 4000, 7

# Case -> the packets that the client sends, and the response statuses that the HTTP standards require.
CASES: dict[str, tuple[list[bytes], list[int]]] = {
    "body of a request with the header Upgrade": ([OFFER % len(BODY), BODY, LAST], [200, 200]),
    "no Host": ([b"GET / HTTP/1.1\r\n\r\n"], [400]),
    "two Hosts": ([b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"], [400]),
    "HTTP/2.0": ([b"GET / HTTP/2.0\r\nHost: x\r\n\r\n"], [400]),
    "head of 200 kB": ([b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 33_000 + b"\r\n"], [400]),
    "trailers of 200 kB": ([CHUNKED + b"a: b\r\n" * 33_000 + b"\r\n"], [400]),
    "garbage after a request": ([POST + b"garbage\r\n\r\n"], [200, 400]),
    "request after Connection: close": ([LAST + POST], [200]),
    "client that half-closes the connection": ([POST, b""], [200]),
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Respond with the length of the request's body in decimal. This is an ASGI application, for uvicorn."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = b"%d" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Application:
    """The same application as `application`, with the interface of our own connection layer instead of ASGI."""

    max_body_bytes = 1 << 20

    async def __call__(self, request: Request) -> Response:
        """Return a response with the length of the request's body in decimal."""
        if request.fault:
            return Response(b"", request.fault.reason.http)
        body = await request.read()
        request.keep_alive = request.keep_alive and request.complete
        return Response(b"%d" % len(body))


def ours() -> Callable[[], asyncio.Protocol]:
    """Return a function that makes a connection object of our own layer, as asyncio calls it for each client."""
    server: Any = SimpleNamespace(application=Application(), places=Places[Connection](1000), date=b"today")
    return lambda: Connection(server)


def uvicorns(http: Any) -> Callable[[], asyncio.Protocol]:
    """Return a function that makes a connection object of uvicorn. `http` names the parser: `httptools` or `h11`."""
    config = uvicorn.Config(application, http=http, ws="none", lifespan="off", log_level="critical", access_log=False)
    config.load()
    state = ServerState()
    return lambda: config.http_protocol_class(config, state, {})  # type: ignore[call-arg]


LAYERS = {"ours": ours, "uvicorn, httptools": lambda: uvicorns("httptools"), "uvicorn, h11": lambda: uvicorns("h11")}


@contextlib.contextmanager
def serving(layer: str) -> Iterator[tuple[int, Callable[[], float]]]:
    """Start a server with this layer in a thread; yield its port, and a function that returns its CPU seconds."""
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def start() -> int:
        server = await loop.create_server(LAYERS[layer](), "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def spent() -> float:
        return time.thread_time()

    yield (
        asyncio.run_coroutine_threadsafe(start(), loop).result(),
        lambda: asyncio.run_coroutine_threadsafe(spent(), loop).result(),
    )
    loop.call_soon_threadsafe(loop.stop)


def statuses(port: int, packets: list[bytes]) -> list[int]:
    """Send packets on one connection, and return the statuses of the responses, without interim ones (100).

    An empty packet stands for the client closing its sending side.
    """
    found = b""
    with socket.create_connection(("127.0.0.1", port), 5) as client, contextlib.suppress(OSError):
        client.settimeout(1)
        for packet in packets:
            client.sendall(packet) if packet else client.shutdown(socket.SHUT_WR)
            time.sleep(0.05)
        while data := client.recv(65536):
            found += data
    return [status for status in map(int, re.findall(rb"HTTP/1.1 (\d+) ", found)) if status != 100]


def cpu_us(port: int, spent: Callable[[], float]) -> float:
    """Return the server's CPU time per request in microseconds, as the mean over REQUESTS on one open connection.

    `spent` returns the CPU seconds of the server's thread until now.
    """
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(POST)
        client.recv(4096)
        before = spent()
        for _ in range(REQUESTS):
            client.sendall(POST)
            client.recv(4096)
        return (spent() - before) / REQUESTS * 1e6


def main() -> None:
    """Print, for each layer, the cases to which it responds with wrong statuses, and its CPU time per request."""
    times: dict[str, list[float]] = {layer: [] for layer in LAYERS}
    with contextlib.ExitStack() as stack:
        servers = {layer: stack.enter_context(serving(layer)) for layer in LAYERS}
        for layer, (port, _) in servers.items():
            found = {case: statuses(port, packets) for case, (packets, _) in CASES.items()}
            wrong = [f"{case} {found[case]}" for case, (_, right) in CASES.items() if found[case] != right]
            print(f"{layer}: wrong statuses in {len(wrong)} of {len(CASES)} cases: {'; '.join(wrong) or '-'}")
        for _ in range(ROUNDS):
            for layer, server in servers.items():
                times[layer].append(cpu_us(*server))
    for layer, values in times.items():
        print(f"{layer}: {statistics.median(values):.0f} us of CPU time per request")


if __name__ == "__main__":
    main()
