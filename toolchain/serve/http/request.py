"""An HTTP request, whose body may still arrive, and its response."""

import asyncio
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

from toolchain.serve.protocol import RefusedError, too_large

Headers = tuple[tuple[bytes, bytes], ...]

# Asks for the body that a client announces (RFC 9110, section 10.1.1).
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Response(NamedTuple):
    """One response."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = b"application/json"
    headers: Headers = ()


@dataclass(slots=True, eq=False, repr=False)  # its headers may have a token, which no log shows
class Request:
    """One request, whose body may have up to `limit` bytes. It may still arrive while the request is answered."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    _: KW_ONLY
    limit: int
    # Whether the connection may stay open after the response.
    keep_alive: bool
    # Whether the body has arrived, and the response has left.
    complete: bool = False
    answered: bool = False
    # Why the request is refused, if its connection refuses it.
    fault: RefusedError | None = None
    # Where the client is asked for the body when it is read, if the client waits for this (RFC 9110, section 10.1.1).
    expecting: asyncio.Transport | None = None
    _body: bytearray = field(default_factory=bytearray)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        # The HTTP parser has checked that it is a number of 64 bits. It takes zeros before it, and int() counts these.
        if int(self.headers.get(b"content-length", b"").lstrip(b"0") or b"0") > self.limit:
            self.refuse(self.too_large())

    async def read(self) -> bytes:
        """Return the body.

        Raises:
            RefusedError: it is too large, or it is not HTTP.
        """
        if self.expecting and not self._arrived.is_set():
            self.expecting.write(CONTINUE)
        await self._arrived.wait()
        if self.fault:
            raise self.fault
        return bytes(self._body)

    def add(self, part: bytes) -> None:
        """Add to the body."""
        if self.fault:
            return
        self._body += part
        if len(self._body) > self.limit:
            self.refuse(self.too_large())

    def end(self) -> None:
        """Note that the body has arrived."""
        self.complete = True
        self._arrived.set()

    def refuse(self, fault: RefusedError) -> None:
        """Let `read` raise."""
        self.fault, self._body = fault, bytearray()
        self._arrived.set()

    def too_large(self) -> RefusedError:
        """Return the refusal of a body above the limit."""
        return too_large(f"the request's body exceeds the maximum allowed value of {self.limit} bytes")


def by_name(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers by their names.

    One that is given again has all its values, with commas between (RFC 9110, section 5.3). So a token, a length or a
    content encoding that is given twice is not valid, whichever of the two a proxy has checked.
    """
    headers = dict(fields)
    if len(headers) == len(fields):
        return headers
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    return {name: b", ".join(found) for name, found in values.items()}
