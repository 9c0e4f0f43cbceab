"""The bodies of HTTP messages: how much a client may send, and compression in both directions."""

import asyncio
import contextlib
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from toolchain.serve.protocol import Reason, RefusedError

# ASGI's `receive`: returns the next event of a request.
Receive = Callable[[], Awaitable[Any]]

# Content encoding -> zlib's parameter for its format. gzip comes first, so it wins where both are accepted equally.
_WBITS = {b"gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}

# A smaller body fits one network packet uncompressed, so compressing it only costs time.
_MIN_COMPRESSED_BYTES = 1024

# How long, and for how many times the largest body, the rest of a refused body is read.
_DISCARD_S, _DISCARD_TIMES = 2.0, 16


class UnsupportedEncodingError(Exception):
    """The body has a content encoding that the service does not support (501)."""


class UnreadError(RefusedError):
    """A body is refused before all of it was read."""


class ClientGoneError(Exception):
    """The client has closed the connection, so nothing can be sent."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """Return the decompressed body. It may have up to `limit` bytes, both as it arrives and decompressed.

    Raises:
        RefusedError: the body is larger, or it does not match its content encoding.
        UnsupportedEncodingError: the content encoding is neither gzip nor deflate.
        ClientGoneError: the client left before the end of the body.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in _WBITS and encoding not in (b"identity", b""):
        raise UnsupportedEncodingError
    # The HTTP parser has checked that it is a number of 64 bits. It takes zeros before it, and int() counts these.
    if int(headers.get(b"content-length", b"").lstrip(b"0") or b"0") > limit:
        raise UnreadError(Reason.TOO_LARGE, _too_large(limit))
    body = await _receive(receive, limit)
    return _decompress(body, _WBITS[encoding], limit) if encoding in _WBITS else body


async def _receive(receive: Receive, limit: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > limit:
            raise UnreadError(Reason.TOO_LARGE, _too_large(limit))
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> str:
    return f"the request's body exceeds the maximum allowed value of {limit} bytes"


def _decompress(body: bytes, wbits: int, limit: int) -> bytes:
    decompressor = zlib.decompressobj(wbits)
    try:
        data = decompressor.decompress(body, limit + 1)
    except zlib.error:
        raise RefusedError(
            Reason.INVALID, "the request's body is not compressed as its Content-Encoding says"
        ) from None
    if len(data) > limit:
        raise RefusedError(Reason.TOO_LARGE, _too_large(limit))
    if not decompressor.eof or decompressor.unused_data:
        raise RefusedError(
            Reason.INVALID, "the request's compressed body is cut short, or it is followed by other bytes"
        )
    return data


def compress(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    """Return a response's body as the client prefers it, and its content encoding if it is compressed.

    `accepted` is the header Accept-Encoding.
    """
    if not accepted or len(body) < _MIN_COMPRESSED_BYTES:
        return body, None
    weights = {name: _weight(accepted, name) for name in _WBITS}
    encoding = max(weights, key=lambda name: weights[name])
    if not weights[encoding]:
        return body, None
    compressor = zlib.compressobj(level=1, wbits=_WBITS[encoding])
    return compressor.compress(body) + compressor.flush(), encoding


def _weight(accepted: bytes, name: bytes) -> float:
    """Return the weight (q) of an encoding in Accept-Encoding; 0 if it is not accepted."""
    for entry in accepted.lower().split(b","):
        encoding, _, weight = entry.replace(b" ", b"").partition(b";q=")
        if encoding == name:
            try:
                return float(weight or b"1")
            except ValueError:
                return 0.0
    return 0.0


async def discard_rest(receive: Receive, limit: int) -> None:
    """Read and discard the rest of a refused body, up to a bound.

    If the server closed the connection at once, a client that still sends would lose the response.
    """
    left, more = limit * _DISCARD_TIMES, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)
