"""One HTTP connection: httptools parses its requests, and their responses are sent in the order of the requests.

Trailers are dropped, and an offer to upgrade to another protocol is ignored, so nothing after the head of a request
changes the request (RFC 9110, sections 6.5.1 and 7.8). The service knows the limit of each body when the head arrives,
so a body needs no flow control. If a second request arrives before the first is answered, the connection reads no more
until then.
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

# Paths of the health checks. Their Host header may have any name, because probes use various names.
HEALTH = ("/v2/health/live", "/v2/health/ready", "/health")

# Paths that are answered even on a connection that has only a spare place (places.py).
PROBED = (*HEALTH, "/metrics")

# The value of a Host header: a name or an IP address, and possibly a port (RFC 3986, section 3.2).
_HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*")

# Most bytes of a body in one write. The size of a TLS transport's write buffer leaves out what a write has passed on to
# the socket's transport. So after a single write of the whole body, `unread_bytes` would take all of it as read.
_PIECE_BYTES = 1 << 20

# Headers with which a client offers to upgrade to another protocol.
_OFFER = (b"upgrade", b"http2-settings")

_STATUS = {status.value: b"HTTP/1.1 %d %s\r\ndate: " % (status, status.phrase.encode()) for status in HTTPStatus}
# The response to a client for which there is no place (places.py).
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b'retry-after: 1\r\ncontent-length: 32\r\n\r\n{"error":"too many connections"}'
)


class Connection(asyncio.Protocol):
    """The connection of one client. The parser calls the methods `on_...`."""

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self._parser: Any = httptools.HttpRequestParser(self)
        # Requests that are not answered yet, and the task that answers the first of them.
        self._requests: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        # The request whose head has arrived completely and whose body has not.
        self._incoming: Request | None = None
        # Whether no more requests are read, and whether responses wait until the client has read the earlier ones.
        self._ended, self._paused = False, False
        # The task that runs `open`, and whether the client has closed its sending side.
        self.opening: asyncio.Task[None]
        self.half_closed = False
        # Bytes received for the current request, without the packet in which it begins, and the most that it may have.
        self._received, self._max_received = 0, HEAD_BYTES
        self._url, self._headers = b"", cast("list[tuple[bytes, bytes]]", [])
        # Bytes of the current request's head; after the head, bytes of its trailers.
        self._head_bytes = 0

    async def open(self, client: socket.socket, tls: "ssl.SSLContext | None") -> None:
        """Start the connection on the accepted socket of a client, which already has a place (places.py).

        With `tls`, the handshake comes first; a client whose handshake fails is disconnected.
        """
        connect = asyncio.get_running_loop().connect_accepted_socket
        try:
            await connect(lambda: self, client, ssl=tls, ssl_handshake_timeout=SILENT_S if tls else None)
        except (OSError, asyncio.CancelledError):
            self._server.places.leave(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport. asyncio calls this when the connection is ready to read."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the client's place, and cancel the request that is being answered. asyncio calls this."""
        self._server.places.leave(self)
        if self._task:
            self._task.cancel()
        self._requests.clear()
        self._parser = self._incoming = None  # breaks the reference cycle between the parser and this object

    def hang_up(self) -> None:
        """Close the connection at once."""
        if not self.opening.cancel():  # `open` has finished
            self._transport.abort()

    def shutdown(self) -> None:
        """Close the connection if it has no unanswered request.

        Otherwise it closes after the next response, because the application is shutting down.
        """
        if not self._requests and not self.opening.cancel():
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse data from the client. Disconnect a client that sends more data than the longest allowed request has."""
        if self._ended:
            return
        self._received += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            # If a callback below raises RefusedError, the parser raises its own error, with the first as its context.
            why = error.__context__ if isinstance(error.__context__, RefusedError) else "Invalid HTTP request received."
            if not self._ended:
                self._refuse(str(why))
        if self._received > self._max_received:
            self._transport.abort()

    def _parse(self, data: bytes) -> None:
        """Parse data.

        The parser stops after a head that offers an upgrade to another protocol. The head is then parsed again without
        the offer.
        """
        while True:
            try:
                return self._parser.feed_data(data)  # type: ignore[no-any-return]
            except httptools.HttpParserUpgrade as offer:
                data = self._head_without_offer() + data[offer.args[0] :]
                self._parser = httptools.HttpRequestParser(self)

    def _head_without_offer(self) -> bytes:
        """Return the head of the current request without the headers that offer another protocol."""
        lines = [b"%s %s HTTP/%s" % (self._parser.get_method(), self._url, self._parser.get_http_version().encode())]
        for name, value in self._headers:
            if name == b"connection":
                kept = (word.strip() for word in value.split(b",") if word.strip().lower() not in _OFFER)
                value = b", ".join(kept)
            if name not in _OFFER and not (name == b"connection" and not value):
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"\r\n"])

    def _refuse(self, message: str) -> None:
        """Answer data that is not valid HTTP with 400, after the responses to earlier requests.

        The connection then closes.
        """
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
        """Handle the end of the client's data.

        Return True to keep the connection open for responses that are not sent yet.

        A client that has left looks like one that has only closed its sending side. But the machine of a
        client that has left resets the connection when data arrives. So `100 Continue` is sent, which all clients
        ignore, and `has_left` detects the reset.
        """
        if not self._requests or self._transport.get_extra_info("sslcontext"):
            return False
        if self._incoming:
            self._refuse("the client closed the connection before the end of the request's body")
        self._ended, self.half_closed = True, True
        self._requests[-1].keep_alive = False
        if self._task:
            self._transport.write(CONTINUE)
        return True

    def has_left(self) -> bool:
        """Return whether a client that has closed its sending side has also reset the connection."""
        client = self._transport.get_extra_info("socket") if self.half_closed else None
        return bool(client and client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def on_message_begin(self) -> None:
        """Reset the data of the request that is being parsed, because a new one begins."""
        self._received, self._max_received = 0, HEAD_BYTES
        self._url, self._headers, self._head_bytes = b"", [], 0

    def on_url(self, url: bytes) -> None:
        """Append to the URL of the request, which may arrive in several parts."""
        self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. A trailer is ignored, so that it cannot replace what a proxy has checked."""
        self._count(len(name) + len(value) + 4)  # four bytes for the colon, the space and the end of the line
        if not self._incoming:
            self._headers.append((name.lower(), value))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            raise invalid(f"the request's head or trailers exceed {HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """Check the head of a request, and queue the request.

        The request is answered at once if no other request is being answered.
        """
        if self._ended:
            return
        method = self._parser.get_method()
        if self._parser.should_upgrade():
            if method == b"CONNECT":
                raise invalid("this is not a proxy")
            return  # `_parse` parses the head again, without the offer
        version, headers = self._parser.get_http_version(), by_name(self._headers)
        if version not in ("1.0", "1.1"):
            raise invalid("the HTTP version is neither 1.0 nor 1.1")
        if not _HOST.fullmatch(headers.get(b"host", b"" if version == "1.0" else b" ")):
            raise invalid("a request needs exactly one Host header, with a valid host name")
        if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise invalid("the only supported Transfer-Encoding is chunked")
        url = httptools.parse_url(self._url)
        if url.host:  # it replaces the Host header (RFC 9112, section 3.2.2)
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
        """Append to the request's body."""
        if self._incoming:
            self._incoming.add(body)

    def on_message_complete(self) -> None:
        """Mark the request as complete.

        Do nothing after a head with an offer to upgrade, because it is parsed again without the offer.
        """
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
        """Start to answer the next request. If no other request is queued, read from the client again."""
        self._start()
        if len(self._requests) == 1 and not self._ended:
            self._transport.resume_reading()
            if self._requests[0] is self._incoming:
                self._server.places.wait(self)

    def _finish(self, request: Request) -> None:
        """Close the connection after its last response, but not before the client closes its side.

        This wait ends after DISCARD_S seconds. Without it, data that the client still sends would reset the connection,
        and the client could lose the responses. With TLS, the connection closes at once after a complete request.
        """
        self._requests.clear()
        if self.half_closed:
            return self._transport.close()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        elif request.complete and not request.fault:
            return self._transport.close()
        self._transport.resume_reading()  # to discard what arrives, and to notice when the client closes
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
            # A copy of each piece, because a memoryview would keep the whole body in memory until the last is sent.
            self._transport.write(body[start : start + _PIECE_BYTES])

    def pause_writing(self) -> None:
        """Answer no further request until the client has read its responses. asyncio calls this.

        If the unread responses of all clients exceed MAX_UNREAD_BYTES, silent clients are disconnected.
        """
        self._paused = True
        self._server.places.make_room(self, MAX_UNREAD_BYTES, Connection.unread_bytes)

    def unread_bytes(self) -> int:
        """Return how many bytes of responses the client has not read; 0 unless writing to the client is paused."""
        return self._transport.get_write_buffer_size() if self._paused else 0

    def resume_writing(self) -> None:
        """Answer the next request, because the client has read its responses. asyncio calls this."""
        self._paused = False
        if self._requests and not self._task:
            self._server.places.work(self)
            self._go_on()
