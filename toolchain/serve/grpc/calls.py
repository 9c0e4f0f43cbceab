"""The handling of gRPC calls between the library and the methods: token, parsing, serialisation, refusals.

The library passes each request as bytes, and they are parsed here, so that invalid bytes get a plain refusal. Whatever
goes wrong, the client sees a message of the service and never the text of an exception.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from toolchain.serve.auth import is_authorized
from toolchain.serve.proto import MESSAGES, SERVICES
from toolchain.serve.protocol import Reason, RefusedError
from toolchain.serve.request_log import OFF, RequestLog

log = logging.getLogger(__name__)

# Methods that need no token, because orchestrators call them.
OPEN_METHODS = {"ServerLive", "ServerReady", "Check"}

# The method of a call in the request log.
GRPC = "gRPC"

# Requests of one stream in flight. Further ones wait in the client.
STREAM_WINDOW = 64

# Longest message of a refusal. It travels in a header of at most 8 KiB, in which one byte may become three.
MESSAGE_BYTES = 1300

# Takes a request's message and gRPC's context, and returns a message, or a dict with the message's fields.
Method = Callable[[Any, Any], Awaitable[Any]]


class CallHandler:
    """Checks the token of each call, parses its request and serialises its response."""

    def __init__(self, token: str | None, requests: RequestLog = OFF) -> None:
        self._token, self._requests = token, requests
        self._closed = False
        # Tasks that wait for the next request of a stream.
        self._readers: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Refuse new calls and read no more from streams; each stream ends after its last response."""
        self._closed = True
        for task in self._readers:
            task.cancel()

    def handlers(self, service: str, methods: Any) -> Any:
        """Return gRPC's handlers of a service, given by its full name; `methods` has a method for each of them."""
        by_name = {method.name: self._handler(method, methods) for method in SERVICES[service].methods}
        return grpc.method_handlers_generic_handler(service, by_name)

    def _handler(self, descriptor: Any, methods: Any) -> Any:
        if descriptor.name == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream(descriptor, methods.model_infer))
        method = getattr(methods, re.sub(r"(?<!^)(?=[A-Z])", "_", descriptor.name).lower())
        return grpc.unary_unary_rpc_method_handler(self._unary(descriptor, method))

    def _unary(self, descriptor: Any, method: Method) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """Return the handler of a method with one request and one response."""
        request_type, response_type = _message_types(descriptor)
        is_open, path = descriptor.name in OPEN_METHODS, _path(descriptor)

        async def handle(blob: bytes, context: Any) -> bytes:
            with self._requests.request(GRPC, path) as entry:
                if entry.id:
                    context.set_trailing_metadata((("x-request-id", entry.id),))
                refused = None if is_open else self._refuse(context)
                if refused is None:
                    try:
                        response = _serialise(await method(_parse(request_type, blob), context), response_type)
                        entry.status = 200
                        return response
                    except Exception as error:
                        refused = _as_refusal(error)
                entry.status = refused.reason.http
            await context.abort(grpc.StatusCode[refused.reason.grpc], _message(refused))
            raise AssertionError("abort has raised")

        return handle

    def _stream(self, descriptor: Any, method: Method) -> Callable[[AsyncIterator[bytes], Any], Awaitable[None]]:
        """Return the handler of a stream. Responses are in the order of requests; a refusal concerns one request."""
        request_type, response_type = _message_types(descriptor)

        async def respond(blob: bytes, context: Any) -> bytes:
            request = request_type()
            with self._requests.request(GRPC, _path(descriptor)) as entry:
                try:
                    request = _parse(request_type, blob)
                    response = response_type(infer_response=await method(request, context))
                    entry.status = 200
                except Exception as error:
                    refused = _as_refusal(error)
                    entry.status = refused.reason.http
                    response = response_type(error_message=_message(refused), infer_response={"id": request.id})
            return bytes(response.SerializeToString())

        async def handle(requests: AsyncIterator[bytes], context: Any) -> None:
            if refused := self._refuse(context):
                await context.abort(grpc.StatusCode[refused.reason.grpc], _message(refused))
            responses: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
            window = asyncio.Semaphore(STREAM_WINDOW)

            async def read() -> None:
                async for blob in requests:
                    # No await before this: `close` may cancel the reader at any await, and no request may be lost.
                    responses.put_nowait(group.create_task(respond(blob, context)))
                    await window.acquire()

            async def write() -> None:
                while (task := await responses.get()) is not None:
                    await context.write(await task)
                    window.release()

            async with asyncio.TaskGroup() as group:
                group.create_task(write())
                reader = group.create_task(read())
                self._readers.add(reader)
                reader.add_done_callback(self._readers.discard)
                await asyncio.wait([reader])
                responses.put_nowait(None)
            if reader.cancelled():
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(_stopping()))

        return handle

    def _refuse(self, context: Any) -> RefusedError | None:
        """Return the refusal of a call without the token, or of any call at shutdown; None if it is accepted."""
        if self._closed:
            return _stopping()
        if not self._token:
            return None
        metadata = {key.encode(): str(value).encode() for key, value in context.invocation_metadata()}
        if is_authorized(metadata, self._token):
            return None
        return RefusedError(
            Reason.UNAUTHENTICATED, "this service needs its token: metadata authorization: Bearer TOKEN"
        )


def _path(descriptor: Any) -> str:
    return f"/{descriptor.containing_service.full_name}/{descriptor.name}"


def _message_types(descriptor: Any) -> tuple[Any, Any]:
    return MESSAGES[descriptor.input_type.full_name], MESSAGES[descriptor.output_type.full_name]


def _stopping() -> RefusedError:
    return RefusedError(Reason.UNAVAILABLE, "Server is stopping, no new requests are accepted")


def _parse(message_type: Any, blob: bytes) -> Any:
    try:
        return message_type.FromString(blob)
    except DecodeError as error:
        raise RefusedError(
            Reason.INVALID, f"the request is not a valid message of type {message_type.DESCRIPTOR.name}"
        ) from error


def _serialise(response: Any, message_type: Any) -> bytes:
    if isinstance(response, dict):
        response = ParseDict(response, message_type(), ignore_unknown_fields=True)
    return bytes(response.SerializeToString())


def _as_refusal(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    log.error("gRPC: a call failed", exc_info=error)
    return RefusedError(Reason.INTERNAL, "the service failed; its log says why")


def _message(refused: RefusedError) -> str:
    return str(refused).encode()[:MESSAGE_BYTES].decode(errors="ignore")
