"""One client's connection: what uvicorn leaves open is bounded here.

uvicorn puts no bound on the length of a request's head or on the time that a client takes, and tells an application
that its client has left only if a task of its own waits to hear so.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION = "toolchain.connection"
"""The key of a request's scope under which its connection is."""

HEAD_BYTES = 64 * 1024
_BODY_TIMES = 16
"""A body of small chunks takes several times its bytes; what is too large is read on for a while (see guard.py)."""
MOST = 1000
"""Connections at a time; who comes then is told, and those that are there are served as before."""
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
)
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b'retry-after: 1\r\ncontent-length: 32\r\n\r\n{"error":"too many connections"}'
)


class Busy(asyncio.Protocol):
    """Tells a client that there are too many, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer before it asks."""
        transport = cast("asyncio.Transport", transport)
        transport.write(_BUSY)
        transport.close()


class Connection(HttpToolsProtocol):
    """Ends with a client that sends too much, and ends the request of one that leaves."""

    received = 0
    """Bytes of the request that is being read, about: what a packet holds of the one before it counts too."""
    bound = HEAD_BYTES
    task: asyncio.Task[Any] | None = None
    """Set by the application while it works on a request."""
    running: Any = None
    """The request that the application works on, of those that a client sent without waiting for answers."""

    def data_received(self, data: bytes) -> None:
        """Parse what came, and hang up on what is longer than any request may be."""
        self.received += len(data)
        super().data_received(data)
        if self.received > self.bound and self.transport is not None:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Begin a request's head."""
        super().on_message_begin()
        self.received, self.bound = 0, HEAD_BYTES
        cast("dict[str, Any]", self.scope)[CONNECTION] = self

    def on_headers_complete(self) -> None:
        """Begin a request's body, and let the application answer."""
        self.bound = HEAD_BYTES + _BODY_TIMES * cast("Any", self.app).most_body_bytes
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the work for a client that has left."""
        super().connection_lost(exc)
        if self.running is not None:
            self.running.disconnected = True  # uvicorn tells the last that came alone; this one would answer nobody
        if self.task is not None:
            self.task.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the form of all errors."""
        body = orjson.dumps({"error": msg})
        self.transport.write(_BAD_REQUEST % (len(body), body))
        self.transport.close()


def stalled(connection: Any) -> bool:
    """Return whether it is the client's turn: to begin a request, to end it, or to read its answer."""
    cycle = connection.cycle
    return bool(cycle is None or cycle.response_complete or cycle.more_body or connection.flow.write_paused)


def sweep(connections: Iterable[Any], before: dict[Any, Any]) -> dict[Any, Any]:
    """Hang up on clients whose turn it was at the last sweep already, for the same request; return whose it is now.

    So no request costs a timer. A client has at least the time between two sweeps, and at most twice that.
    """
    now = {connection: connection.cycle for connection in connections if stalled(connection)}
    for connection, cycle in now.items():
        if connection in before and before[connection] is cycle:
            connection.transport.abort()
    return now
