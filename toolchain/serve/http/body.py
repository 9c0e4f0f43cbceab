"""Decompression of the bodies of requests, and compression of the bodies of responses."""

import zlib

from toolchain.serve.http.request import Request
from toolchain.serve.protocol import Reason, RefusedError, invalid

# Content encoding -> zlib's parameter `wbits`. gzip comes first, so it is used if the client accepts both equally.
_WBITS = {b"gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}

# A smaller body is not compressed, because it fits into one network packet anyway.
_MIN_COMPRESSED_BYTES = 1024


async def read_body(request: Request) -> bytes:
    """Return the decompressed body of a request.

    The size limit applies to the body both before and after decompression.

    Raises:
        RefusedError: the body is too large, its content encoding is neither gzip nor deflate, or the body does not
            match this encoding.
    """
    encoding = request.headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in _WBITS and encoding not in (b"identity", b""):
        raise RefusedError(Reason.UNSUPPORTED, "Unsupported compression type")
    body = await request.read()
    return _decompress(body, _WBITS[encoding], request) if encoding in _WBITS else body


def _decompress(body: bytes, wbits: int, request: Request) -> bytes:
    decompressor = zlib.decompressobj(wbits)
    try:
        data = decompressor.decompress(body, request.limit + 1)
    except zlib.error:
        raise invalid("the request's body does not match its Content-Encoding") from None
    if len(data) > request.limit:
        raise request.too_large()
    if not decompressor.eof or decompressor.unused_data:
        raise invalid("the request's compressed body is cut short, or it is followed by other bytes")
    return data


def compress(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    """Return the body of a response, compressed if the client accepts that, and its content encoding.

    The content encoding is None if the body is not compressed; small bodies never are. `accepted` is the value of the
    client's Accept-Encoding header.
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
    """Return the weight (q, from 0 to 1) of an encoding in Accept-Encoding; 0 if it is not accepted."""
    for entry in accepted.lower().split(b","):
        encoding, _, weight = entry.replace(b" ", b"").partition(b";q=")
        if encoding == name:
            try:
                return float(weight or b"1")
            except ValueError:
                return 0.0
    return 0.0
