"""What stands between gRPC's library and the methods: the token, bytes to messages and back, and faults to refusals.

A call's bytes are parsed here and not by the library, so that bytes which are no message are refused as such. Whatever
goes wrong, the client sees one of our messages and never an exception's text.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from toolchain.serve.guard import allowed
from toolchain.serve.proto import MESSAGES, SERVICES
from toolchain.serve.protocol import Reason, RefusedError

log = logging.getLogger(__name__)

OPEN = {"ServerLive", "ServerReady", "Check"}
"""What needs no token: an orchestrator asks it."""

STREAM_WINDOW = 64
"""Requests of one stream that are under way together; the rest waits in the client."""

MESSAGE_BYTES = 1300
"""Of a refusal: it travels in a header of 8 KiB, where a byte may become three."""

Answer = Callable[[Any, Any], Awaitable[Any]]
"""A request's message and its context -> the answer as a message, or as what JSON would have for it."""


class Door:
    """Lets calls in: looks at the token, parses what comes and packs what leaves."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._closed = False
        self._reading: set[asyncio.Task[None]] = set()
        """What waits for the next request of a stream."""

    def close(self) -> None:
        """Refuse calls, and take no more of streams: each ends once what it asked so far is answered."""
        self._closed = True
        for task in self._reading:
            task.cancel()

    def handlers(self, name: str, methods: Any) -> Any:
        """Return gRPC's handlers of a service of the protocol."""
        found = {method.name: self._handler(method, methods) for method in SERVICES[name].methods}
        return grpc.method_handlers_generic_handler(name, found)

    def _handler(self, method: Any, methods: Any) -> Any:
        asked = MESSAGES[method.input_type.full_name]
        if method.name == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream(asked, methods.model_infer))
        answer = getattr(methods, re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower())
        return grpc.unary_unary_rpc_method_handler(self._unary(method, asked, answer))

    def _unary(self, method: Any, asked: Any, answer: Answer) -> Callable[[bytes, Any], Awaitable[bytes]]:
        given, is_open = MESSAGES[method.output_type.full_name], method.name in OPEN

        async def handle(blob: bytes, context: Any) -> bytes:
            refused = None if is_open else self._refused(context)
            if refused is None:
                try:
                    return _pack(await answer(_parse(asked, blob), context), given)
                except Exception as error:
                    refused = _as_refusal(error)
            await context.abort(grpc.StatusCode[refused.reason.grpc], _words(refused))
            raise AssertionError  # abort has raised

        return handle

    def _stream(self, asked: Any, answer: Answer) -> Callable[[AsyncIterator[bytes], Any], Awaitable[None]]:
        """Return the handler of a stream: answers in the order of requests, each of which fails by itself."""
        given = MESSAGES["inference.ModelStreamInferResponse"]

        async def one(blob: bytes, context: Any) -> bytes:
            request = asked()
            try:
                request = _parse(asked, blob)
                found = given(infer_response=await answer(request, context))
            except Exception as error:
                found = given(error_message=_words(_as_refusal(error)), infer_response={"id": request.id})
            return bytes(found.SerializeToString())

        async def handle(requests: AsyncIterator[bytes], context: Any) -> None:
            if refused := self._refused(context):
                await context.abort(grpc.StatusCode[refused.reason.grpc], _words(refused))
            answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
            room = asyncio.Semaphore(STREAM_WINDOW)

            async def read() -> None:
                async for blob in requests:
                    answers.put_nowait(group.create_task(one(blob, context)))  # at once: `close` may come at any await
                    await room.acquire()

            async def write() -> None:
                while (task := await answers.get()) is not None:
                    await context.write(await task)
                    room.release()

            async with asyncio.TaskGroup() as group:
                group.create_task(write())
                reading = group.create_task(read())
                self._reading.add(reading)
                reading.add_done_callback(self._reading.discard)
                await asyncio.wait([reading])
                answers.put_nowait(None)
            if reading.cancelled():
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(_stopping()))

        return handle

    def _refused(self, context: Any) -> RefusedError | None:
        """Return the refusal of a caller who does not show the token, or of anyone when the door is closed."""
        if self._closed:
            return _stopping()
        if not self._token:
            return None
        metadata = {key.encode(): str(value).encode() for key, value in context.invocation_metadata()}
        if allowed(metadata, self._token):
            return None
        return RefusedError(
            Reason.UNAUTHENTICATED, "this service needs its token: metadata authorization: Bearer TOKEN"
        )


def _stopping() -> RefusedError:
    return RefusedError(Reason.UNAVAILABLE, "Server is stopping, no new requests are accepted")


def _parse(asked: Any, blob: bytes) -> Any:
    try:
        return asked.FromString(blob)
    except DecodeError as error:
        raise RefusedError(Reason.INVALID, f"the bytes are no {asked.DESCRIPTOR.name}") from error


def _pack(found: Any, given: Any) -> bytes:
    message = ParseDict(found, given(), ignore_unknown_fields=True) if isinstance(found, dict) else found
    return bytes(message.SerializeToString())


def _as_refusal(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    log.error("gRPC: a call failed", exc_info=error)
    return RefusedError(Reason.INTERNAL, "the service failed; its log says why")


def _words(refused: RefusedError) -> str:
    return str(refused).encode()[:MESSAGE_BYTES].decode(errors="ignore")
