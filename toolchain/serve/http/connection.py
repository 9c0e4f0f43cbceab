"""One HTTP connection: uvicorn's, with bounds that uvicorn lacks.

uvicorn bounds neither the length of a request's headers nor the time that a client takes. It adds a trailer to the
headers, and takes a body behind an offer to upgrade for the next request; here both are as in RFC 9110. It also reports
that a client has left only to a task that waits for this; here the request's own task is cancelled instead.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# An ASGI scope: its keys and their types are those of the ASGI specification.
Scope = dict[str, Any]

# The key of an ASGI scope under which the application finds the connection.
CONNECTION = "toolchain.connection"

# Longest request line and headers.
HEAD_BYTES = 64 * 1024

# Headers that offer another protocol. An offer is ignored (RFC 9110, section 7.8).
_OFFER = (b"upgrade", b"http2-settings")

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


class _HeadError(Exception):
    """A request's head is refused; the client reads the message."""


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

    # Bytes of the current request's head, and of its trailers.
    head_bytes = 0
    head_complete = False

    def data_received(self, data: bytes) -> None:
        """Parse data of the client, and close the connection if the request is longer than any may be."""
        self.received += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            # What a callback below refuses is the context of the parser's own error.
            why = error.__context__ if isinstance(error.__context__, _HeadError) else "Invalid HTTP request received."
            self.send_400_response(str(why))
        if self.received > self.max_received and self.transport is not None:
            self.transport.abort()

    def _parse(self, data: bytes) -> None:
        """Parse data. The parser stops behind a head with an offer to upgrade, which is parsed again without it."""
        while True:
            try:
                return self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = self._head_without_offer() + data[offer.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own

    def _head_without_offer(self) -> bytes:
        """Return the head of the current request without what offers another protocol."""
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = (word.strip() for word in value.split(b",") if word.strip().lower() not in _OFFER)
                value = b", ".join(kept)
            if name not in _OFFER and not (name == b"connection" and not value):
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"\r\n"])

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.received, self.max_received = 0, HEAD_BYTES
        self.head_bytes, self.head_complete = 0, False
        cast("Scope", self.scope)[CONNECTION] = self

    def on_url(self, url: bytes) -> None:
        """Add to the path."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. A trailer is ignored, so that it cannot replace what a proxy has checked."""
        self._count(len(name) + len(value) + 4)  # a colon, a blank and the end of the line
        if not self.head_complete:
            super().on_header(name, value)

    def _count(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > HEAD_BYTES:
            raise _HeadError(f"the request's head or trailers exceed {HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """Begin the request's body, and call the application."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _HeadError("this is not a proxy")
            return  # `_parse` begins the request again
        version, hosts = self.parser.get_http_version(), sum(name == b"host" for name, _ in self.headers)
        if version not in ("1.0", "1.1"):
            raise _HeadError("the version of HTTP is neither 1.0 nor 1.1")
        if hosts > 1 or (version == "1.1" and not hosts):
            raise _HeadError("a request needs one header Host")
        self.head_bytes, self.head_complete = 0, True
        self.max_received = HEAD_BYTES + _BODY_TIMES * cast("Any", self.app).max_body_bytes
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Add to the request's body."""
        if self.head_complete:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request, unless it begins again without an offer to upgrade."""
        if self.head_complete:
            super().on_message_complete()

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
