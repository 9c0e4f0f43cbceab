"""An HTTP request, whose body may still be arriving, and an HTTP response."""

import asyncio
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

from toolchain.serve.protocol import RefusedError, too_large

Headers = tuple[tuple[bytes, bytes], ...]

# Tells a client that waits with its body to send it (RFC 9110, section 10.1.1).
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Response(NamedTuple):
    """An HTTP response: its body, status, content type, and further headers."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = b"application/json"
    headers: Headers = ()


@dataclass(slots=True, eq=False, repr=False)  # no repr: the headers may have a token, which must not get into a log
class Request:
    """An HTTP request. It can be answered while its body is still arriving.

    The body may have up to `limit` bytes.
    """

    method: str
    path: str
    headers: dict[bytes, bytes]
    _: KW_ONLY
    limit: int
    # Whether the connection may stay open after the response.
    keep_alive: bool
    # Whether the whole body has arrived, and whether the response has been written.
    complete: bool = False
    answered: bool = False
    # The error with which the connection or the limit of the body refuses the request; None if neither does.
    fault: RefusedError | None = None
    # The transport to which `read` writes `100 Continue`; None if the client does not wait for that.
    expecting: asyncio.Transport | None = None
    _body: bytearray = field(default_factory=bytearray)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        # The HTTP parser has checked that Content-Length is a 64-bit number, but it allows any number of leading zeros.
        # int() counts them as digits, and raises an error for more than 4,300 digits.
        if int(self.headers.get(b"content-length", b"").lstrip(b"0") or b"0") > self.limit:
            self.refuse(self.too_large())

    async def read(self) -> bytes:
        """Wait until the whole body has arrived, and return it.

        Raises:
            RefusedError: the body is too large, or the connection refused the request.
        """
        if self.expecting and not self._arrived.is_set():
            self.expecting.write(CONTINUE)
        await self._arrived.wait()
        if self.fault:
            raise self.fault
        return bytes(self._body)

    def add(self, part: bytes) -> None:
        """Append a part of the body, which has just arrived."""
        if self.fault:
            return
        self._body += part
        if len(self._body) > self.limit:
            self.refuse(self.too_large())

    def end(self) -> None:
        """Mark the body as complete."""
        self.complete = True
        self._arrived.set()

    def refuse(self, fault: RefusedError) -> None:
        """Refuse the request: `read` raises `fault`, and the body is dropped."""
        self.fault, self._body = fault, bytearray()
        self._arrived.set()

    def too_large(self) -> RefusedError:
        """Return the error for a body that exceeds the limit."""
        return too_large(f"the request's body exceeds the maximum allowed value of {self.limit} bytes")


def by_name(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers as a dict, name -> value.

    If a header is given several times, its values are joined with commas (RFC 9110, section 5.3). So a token, length or
    content encoding that is given twice becomes invalid. Otherwise, a proxy could check one value and the service use
    the other.
    """
    headers = dict(fields)
    if len(headers) == len(fields):
        return headers
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    return {name: b", ".join(found) for name, found in values.items()}
