"""One HTTP connection: uvicorn's, with bounds that uvicorn lacks.

uvicorn bounds neither the length of a request's headers nor the time that a client takes. It also reports that a client
has left only to a task that waits for this; here the request's own task is cancelled instead.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# An ASGI scope: its keys and their types are those of the ASGI specification.
Scope = dict[str, Any]

# The key of an ASGI scope under which the application finds the connection.
CONNECTION = "toolchain.connection"

# Longest request line and headers.
HEAD_BYTES = 64 * 1024

# A body in small chunks arrives as several times its own bytes, and the rest of a refused body is still read for a
# while (see `discard_rest` in body.py). So a connection is closed only at this multiple of the largest body.
_BODY_TIMES = 16

# Open connections. A further client receives 503 at once; those that are connected are served as before.
MAX_CONNECTIONS = 1000

_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
)
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b'retry-after: 1\r\ncontent-length: 32\r\n\r\n{"error":"too many connections"}'
)


class BusyConnection(asyncio.Protocol):
    """A connection above MAX_CONNECTIONS: it sends 503 and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the response before the client has sent a request."""
        transport = cast("asyncio.Transport", transport)
        transport.write(_BUSY)
        transport.close()


class Connection(HttpToolsProtocol):
    """A connection that closes when its client sends too much, and cancels the request of a client that leaves."""

    # Bytes of the current request, approximately: the end of the previous request in the same packet counts too.
    received = 0
    max_received = HEAD_BYTES
    # The task of the current request; the application sets it.
    task: asyncio.Task[Any] | None = None
    # uvicorn's state of the current request. A client may send further requests before the response (pipelining).
    running: Any = None

    def data_received(self, data: bytes) -> None:
        """Parse data of the client, and close the connection if the request is longer than any may be."""
        self.received += len(data)
        super().data_received(data)
        if self.received > self.max_received and self.transport is not None:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.received, self.max_received = 0, HEAD_BYTES
        cast("Scope", self.scope)[CONNECTION] = self

    def on_headers_complete(self) -> None:
        """Begin the request's body, and call the application."""
        self.max_received = HEAD_BYTES + _BODY_TIMES * cast("Any", self.app).max_body_bytes
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request of a client that has left."""
        super().connection_lost(exc)
        if self.running is not None:
            self.running.disconnected = True  # uvicorn marks only the last request that arrived, not the running one
        if self.task is not None:
            self.task.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuse data that is not HTTP, in the form of all refusals."""
        with cast("Any", self.app).requests.request("-", None) as entry:
            entry.status = 400
        body = orjson.dumps({"error": msg})
        self.transport.write(_BAD_REQUEST % (len(body), body))
        self.transport.close()


def is_waiting_for_client(connection: Any) -> bool:
    """Return whether the client must act next: begin a request, finish it, or read its response."""
    cycle = connection.cycle
    return bool(cycle is None or cycle.response_complete or cycle.more_body or connection.flow.write_paused)


def close_idle(connections: Iterable[Any], before: dict[Any, Any]) -> dict[Any, Any]:
    """Close the connections whose client has not acted since the last call, and return those that wait for the client.

    `before` is the return value of the last call: connection -> its request. Called at an interval, this needs no timer
    for each request. A client has at least the interval, and at most twice the interval, to act.
    """
    waiting = {connection: connection.cycle for connection in connections if is_waiting_for_client(connection)}
    for connection, cycle in waiting.items():
        if connection in before and before[connection] is cycle:
            connection.transport.abort()
    return waiting
