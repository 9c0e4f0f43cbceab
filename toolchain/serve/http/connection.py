"""One HTTP connection: requests from httptools, which parses them, and their responses in order.

Nothing that follows the head of a request changes it: trailers are dropped, and an offer to upgrade is ignored (RFC
9110, sections 6.5.1 and 7.8). The service knows each body's limit when its head arrives, so a body needs no flow
control; requests behind the first are read no further until it is answered.
"""

import asyncio
import logging
import re
import socket
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools

from toolchain.serve.http.request import CONTINUE, Request, Response, by_name
from toolchain.serve.limits import BODY_TIMES, DISCARD_S, HEAD_BYTES, MAX_UNREAD_BYTES, SILENT_S
from toolchain.serve.protocol import Reason, RefusedError, invalid

if TYPE_CHECKING:
    import ssl

    from toolchain.serve.http.server import HttpServer

log = logging.getLogger("toolchain")

# Health checks, which probes send under any name.
HEALTH = ("/v2/health/live", "/v2/health/ready", "/health")

# Paths that are answered on connections for which there is no other place.
PROBED = (*HEALTH, "/metrics")

# A header Host (RFC 3986, section 3.2): a name or an address, and a port.
_HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*")

# Bytes that are written at once. TLS would count a whole body as read by the client.
_PIECE_BYTES = 1 << 20

# Headers that offer another protocol.
_OFFER = (b"upgrade", b"http2-settings")

_STATUS = {status.value: b"HTTP/1.1 %d %s\r\ndate: " % (status, status.phrase.encode()) for status in HTTPStatus}
# To a client for which there is no place.
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b'retry-after: 1\r\ncontent-length: 32\r\n\r\n{"error":"too many connections"}'
)


class Connection(asyncio.Protocol):
    """The connection of one client. Its methods `on_...` are called by the parser."""

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self._parser: Any = httptools.HttpRequestParser(self)
        # Requests that are not answered yet, and the task that answers the first of them.
        self._requests: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        # The request whose head has arrived and whose body has not.
        self._incoming: Request | None = None
        # Whether nothing more is read, and whether responses wait until the client has read those before.
        self._ended, self._paused = False, False
        # The task that opens the connection, and whether the client has closed its side.
        self.opening: asyncio.Task[None]
        self.half_closed = False
        # Bytes of the current request, approximately: the end of the previous request in the same packet counts too.
        self._received, self._max_received = 0, HEAD_BYTES
        self._url, self._headers = b"", cast("list[tuple[bytes, bytes]]", [])
        # Bytes of the current request's head, and later of its trailers.
        self._head_bytes = 0

    async def open(self, client: socket.socket, tls: "ssl.SSLContext | None") -> None:
        """Connect a client that has a place. A TLS client whose handshake fails is disconnected."""
        connect = asyncio.get_running_loop().connect_accepted_socket
        try:
            await connect(lambda: self, client, ssl=tls, ssl_handshake_timeout=SILENT_S if tls else None)
        except (OSError, asyncio.CancelledError):
            self._server.places.leave(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the client can be read."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request of a client that has left."""
        self._server.places.leave(self)
        if self._task:
            self._task.cancel()
        self._requests.clear()
        self._parser = self._incoming = None  # the parser and this object refer to each other

    def hang_up(self) -> None:
        """Close the connection at once."""
        if not self.opening.cancel():  # it has been opened
            self._transport.abort()

    def shutdown(self) -> None:
        """Close the connection when the requests that have arrived are answered."""
        if not self._requests and not self.opening.cancel():
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse data of the client, and close the connection if a request is longer than any may be."""
        if self._ended:
            return
        self._received += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            # What a callback below refuses is the context of the parser's own error.
            why = error.__context__ if isinstance(error.__context__, RefusedError) else "Invalid HTTP request received."
            if not self._ended:
                self._refuse(str(why))
        if self._received > self._max_received:
            self._transport.abort()

    def _parse(self, data: bytes) -> None:
        """Parse data. The parser stops behind a head with an offer to upgrade, which is parsed again without it."""
        while True:
            try:
                return self._parser.feed_data(data)  # type: ignore[no-any-return]
            except httptools.HttpParserUpgrade as offer:
                data = self._head_without_offer() + data[offer.args[0] :]
                self._parser = httptools.HttpRequestParser(self)

    def _head_without_offer(self) -> bytes:
        """Return the head of the current request without what offers another protocol."""
        lines = [b"%s %s HTTP/%s" % (self._parser.get_method(), self._url, self._parser.get_http_version().encode())]
        for name, value in self._headers:
            if name == b"connection":
                kept = (word.strip() for word in value.split(b",") if word.strip().lower() not in _OFFER)
                value = b", ".join(kept)
            if name not in _OFFER and not (name == b"connection" and not value):
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"\r\n"])

    def _refuse(self, message: str) -> None:
        """Refuse data that is not HTTP, after the requests before it are answered."""
        self._ended = True
        request = self._incoming
        if request is None:
            request = Request("-", "", {}, limit=0, keep_alive=False)
            request.end()
            self._enqueue(request)
        elif request.answered:
            self._transport.close()
        request.keep_alive = False
        request.refuse(invalid(message))

    def eof_received(self) -> bool:
        """Answer what was asked before the client closed its side; return whether the connection stays open for this.

        A client that has left looks the same. It resets the connection when anything is sent to it, so an interim
        response is sent, which all clients ignore. `has_left` sees the reset.
        """
        if not self._requests or self._transport.get_extra_info("sslcontext"):
            return False
        if self._incoming:
            self._refuse("the request ends before its body")
        self._ended, self.half_closed = True, True
        self._requests[-1].keep_alive = False
        if self._task:
            self._transport.write(CONTINUE)
        return True

    def has_left(self) -> bool:
        """Return whether a client that has closed its side has reset the connection too."""
        client = self._transport.get_extra_info("socket") if self.half_closed else None
        return bool(client and client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._received, self._max_received = 0, HEAD_BYTES
        self._url, self._headers, self._head_bytes = b"", [], 0

    def on_url(self, url: bytes) -> None:
        """Add to the path."""
        self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. A trailer is ignored, so that it cannot replace what a proxy has checked."""
        self._count(len(name) + len(value) + 4)  # a colon, a blank and the end of the line
        if not self._incoming:
            self._headers.append((name.lower(), value))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            raise invalid(f"the request's head or trailers exceed {HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """Begin to answer a request, if none is before it."""
        if self._ended:
            return
        method = self._parser.get_method()
        if self._parser.should_upgrade():
            if method == b"CONNECT":
                raise invalid("this is not a proxy")
            return  # `_parse` begins the request again
        version, headers = self._parser.get_http_version(), by_name(self._headers)
        if version not in ("1.0", "1.1"):
            raise invalid("the version of HTTP is neither 1.0 nor 1.1")
        if not _HOST.fullmatch(headers.get(b"host", b"" if version == "1.0" else b" ")):
            raise invalid("a request needs one header Host, which names a host")
        if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise invalid("the only transfer coding is chunked")
        url = httptools.parse_url(self._url)
        if url.host:  # the header does not count then (RFC 9112, section 3.2.2)
            headers[b"host"] = url.host
        path = unquote((url.path or b"/").decode("ascii"))
        self._begin(method.decode(), path, headers, is_old=version == "1.0")

    def _begin(self, method: str, path: str, headers: dict[bytes, bytes], *, is_old: bool) -> None:
        limit = self._server.application.max_body_bytes
        keep_alive = not is_old and self._parser.should_keep_alive()
        request = Request(method, path, headers, limit=limit, keep_alive=keep_alive)
        if headers.get(b"expect", b"").lower() == b"100-continue" and not is_old:
            request.expecting = self._transport
        if self._server.places.is_spare(self) and path not in PROBED:
            request.keep_alive = False
            request.refuse(RefusedError(Reason.UNAVAILABLE, "too many connections"))
        self._incoming, self._head_bytes = request, 0
        self._max_received = HEAD_BYTES + BODY_TIMES * limit
        if not self._requests:
            self._server.places.wait(self)
        self._enqueue(request)

    def on_body(self, body: bytes) -> None:
        """Add to the request's body."""
        if self._incoming:
            self._incoming.add(body)

    def on_message_complete(self) -> None:
        """End the request, unless it begins again without an offer to upgrade."""
        request, self._incoming = self._incoming, None
        if not request:
            return
        request.end()
        self._ended = not request.keep_alive
        if not request.answered:
            self._server.places.work(self)
        elif self._ended:
            self._transport.close()

    def _enqueue(self, request: Request) -> None:
        self._requests.append(request)
        if len(self._requests) > 1:
            self._transport.pause_reading()
        elif not self._paused:
            self._start()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._answer(self._requests[0]))

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._server.application(request)
        except Exception:  # a bug of the service: the log shows it, and the client is disconnected
            log.exception("%s: internal error", request.method)
            return self._transport.abort()
        self._write(request, response)
        self._task, request.answered = None, True
        self._requests.popleft()
        if not request.keep_alive:
            return self._finish(request)
        if self._requests and not self._paused:
            return self._go_on()
        return self._server.places.wait(self)

    def _go_on(self) -> None:
        """Answer the next request that has arrived."""
        self._start()
        if len(self._requests) == 1 and not self._ended:
            self._transport.resume_reading()
            if self._requests[0] is self._incoming:
                self._server.places.wait(self)

    def _finish(self, request: Request) -> None:
        """Close the connection when the client has; data that it still sends would reset it, and responses be lost."""
        self._requests.clear()
        if self.half_closed:
            return self._transport.close()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        elif request.complete and not request.fault:
            return self._transport.close()
        self._transport.resume_reading()  # to discard what arrives, and to see the client's end
        self._server.places.wait(self)
        asyncio.get_running_loop().call_later(DISCARD_S, self._transport.close)
        return None

    def _write(self, request: Request, response: Response) -> None:
        lines = [_STATUS[response.status], self._server.date, b"\r\ncontent-type: ", response.content_type]
        lines.append(b"\r\ncontent-length: %d\r\n" % len(response.body))
        for name, value in response.headers:
            lines += name, b": ", value, b"\r\n"
        lines.append(b"\r\n" if request.keep_alive else b"connection: close\r\n\r\n")
        body = b"" if request.method == "HEAD" else response.body
        self._transport.write(b"".join([*lines, body[:_PIECE_BYTES]]))
        for start in range(_PIECE_BYTES, len(body), _PIECE_BYTES):
            self._transport.write(body[start : start + _PIECE_BYTES])  # a view would keep what is read

    def pause_writing(self) -> None:
        """Start no further request until the client has read its responses. Others give way if all are too large."""
        self._paused = True
        self._server.places.make_room(self, MAX_UNREAD_BYTES, Connection.unread_bytes)

    def unread_bytes(self) -> int:
        """Return how much the client has not read, once it is so much that the connection is paused."""
        return self._transport.get_write_buffer_size() if self._paused else 0

    def resume_writing(self) -> None:
        """Go on with the next request."""
        self._paused = False
        if self._requests and not self._task:
            self._server.places.work(self)
            self._go_on()
