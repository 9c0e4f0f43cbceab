"""What stands before every handler: the token, how much a client may send, and in which encodings."""

import asyncio
import contextlib
import hmac
import ipaddress
import zlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from toolchain.errors import InputError
from toolchain.serve.protocol import Reason, RefusedError

Receive = Callable[[], Awaitable[Any]]

_WBITS = {b"gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}
_PACK_FROM_BYTES = 1024
"""A smaller answer fits one packet as it is; packing it costs more than it saves."""
_SHORTEST_TOKEN = 16
_LINGER_S, _LINGER_TIMES = 2.0, 16


class UnsupportedEncodingError(Exception):
    """A body in an encoding that is not ours (501)."""


class UnreadError(RefusedError):
    """A refusal of a body before its end, which is not wanted any more."""


class ClientGoneError(Exception):
    """Nobody is there any more to answer."""


def read_token(path: Path) -> str:
    """Return the token that a file holds.

    Raises:
        InputError: it cannot be read, or what it holds is no token.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Give a file that holds the token.") from error
    except UnicodeDecodeError:
        raise InputError(f"{path}: not ASCII. Give a token of letters, digits and signs.") from None
    if len(token) < _SHORTEST_TOKEN or not all("!" <= sign <= "~" for sign in token):
        what = f"not one word of at least {_SHORTEST_TOKEN} letters, digits and signs"
        raise InputError(f"{path}: {what}. Make one: openssl rand -hex 32.")
    return token


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`; a name other than localhost is taken to be of a network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed(headers: Mapping[bytes, bytes], token: str) -> bool:
    """Return whether the request carries the token; how long that takes tells nothing of it."""
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    return hmac.compare_digest(given.strip(), token.encode()) and scheme.lower() == b"bearer"


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], most: int) -> bytes:
    """Return the body, unpacked; neither what arrives nor what it unpacks to may exceed `most` bytes.

    Raises:
        RefusedError: it is larger, or not packed as it says.
        UnsupportedEncodingError: its encoding is neither gzip nor deflate.
        ClientGoneError: the client left before its end.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in _WBITS and encoding not in (b"identity", b""):
        raise UnsupportedEncodingError
    if int(headers.get(b"content-length", b"0")) > most:  # the parser lets digits pass alone
        raise UnreadError(Reason.TOO_LARGE, _too_large(most))
    body = await _receive(receive, most)
    return _unpack(body, _WBITS[encoding], most) if encoding in _WBITS else body


async def _receive(receive: Receive, most: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > most:
            raise UnreadError(Reason.TOO_LARGE, _too_large(most))
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(most: int) -> str:
    return f"the request's body exceeds the maximum allowed value of {most} bytes"


def _unpack(body: bytes, wbits: int, most: int) -> bytes:
    unpacker = zlib.decompressobj(wbits)
    try:
        unpacked = unpacker.decompress(body, most + 1)
    except zlib.error:
        raise RefusedError(Reason.INVALID, "the request's body is not packed as its Content-Encoding says") from None
    if len(unpacked) > most:
        raise RefusedError(Reason.TOO_LARGE, _too_large(most))
    if not unpacker.eof or unpacker.unused_data:
        raise RefusedError(Reason.INVALID, "the request's packed body is cut short, or something follows it")
    return unpacked


def pack(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    """Return an answer as the client would rather have it, and the encoding if it is packed.

    `accepted` is the header Accept-Encoding; without weights, gzip comes before deflate.
    """
    if not accepted or len(body) < _PACK_FROM_BYTES:
        return body, None
    weights = {name: _weight(accepted, name) for name in _WBITS}
    encoding = max(weights, key=lambda name: weights[name])
    if not weights[encoding]:
        return body, None
    packer = zlib.compressobj(level=1, wbits=_WBITS[encoding])
    return packer.compress(body) + packer.flush(), encoding


def _weight(accepted: bytes, name: bytes) -> float:
    for entry in accepted.lower().split(b","):
        encoding, _, weight = entry.replace(b" ", b"").partition(b";q=")
        if encoding == name:
            try:
                return float(weight or b"1")
            except ValueError:
                return 0.0
    return 0.0


async def linger(receive: Receive, most: int) -> None:
    """Read on for a little and drop it: closing at once would take the answer from a client that still sends."""
    left, more = most * _LINGER_TIMES, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)
