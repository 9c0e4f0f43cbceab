"""The handling of gRPC calls between the library and the methods: token, parsing, serialisation, refusals.

The library passes each request as bytes, and they are parsed here, so that invalid bytes get a plain refusal. Whatever
goes wrong, the client sees a message of the service and never the text of an exception. Every call is handled from its
head on, also one with a single request, so that a call whose request never comes can give way.
"""

import asyncio
import logging
import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from toolchain.serve.aside import aside
from toolchain.serve.auth import is_authorized
from toolchain.serve.limits import STREAM_WINDOW
from toolchain.serve.places import Places
from toolchain.serve.proto import MESSAGES, SERVICES
from toolchain.serve.protocol import Reason, RefusedError, invalid
from toolchain.serve.request_log import OFF, RequestLog

log = logging.getLogger(__name__)

# Methods that need no token, because orchestrators call them.
OPEN_METHODS = {"ServerLive", "ServerReady", "Check"}

# The method of a call in the request log.
GRPC = "gRPC"

# Longest message of a refusal. It travels in a header of at most 8 KiB, in which one byte may become three.
MESSAGE_BYTES = 1300

_SILENT = Reason.EXHAUSTED, "The call sent no request for too long"
_BUSY = Reason.EXHAUSTED, "too many calls"
_NO_TOKEN = Reason.UNAUTHENTICATED, "this service needs its token: metadata authorization: Bearer TOKEN"
_STOPPING = Reason.UNAVAILABLE, "Server is stopping, no new requests are accepted"

# Takes a request's message and gRPC's context, and returns a message, or a dict with the message's fields.
Method = Callable[[Any, Any], Awaitable[Any]]

# Takes a request of a stream as bytes and gRPC's context, and returns the response as bytes.
Respond = Callable[[bytes, Any], Coroutine[Any, Any, bytes]]


class Call:
    """A call. `task` waits for its next request."""

    def __init__(self, task: "asyncio.Task[Any] | None") -> None:
        self.task, self.hung_up = task, False

    def hang_up(self) -> None:
        """Wait no longer for a request."""
        self.hung_up = True
        if self.task:
            self.task.cancel()


class CallHandler:
    """Checks the token of each call, parses its request and serialises its response."""

    def __init__(self, token: str | None, places: Places[Call], requests: RequestLog = OFF) -> None:
        self._token, self._places, self._requests = token, places, requests
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
        return grpc.stream_unary_rpc_method_handler(self._unary(descriptor, method))

    @contextmanager
    def _place(self, context: Any, *, is_open: bool = False) -> Iterator[Call]:
        """Yield the call of this task, which has a place.

        Raises:
            RefusedError: there is no place for it; or, unless it is open to all, it lacks the token, or at shutdown.
        """
        call = Call(asyncio.current_task())
        try:
            if not self._places.enter(call, _host(context.peer())) or (self._places.is_spare(call) and not is_open):
                raise RefusedError(*_BUSY)
            if self._closed and not is_open:
                raise RefusedError(*_STOPPING)
            if self._token and not is_open:
                metadata = {key.encode(): str(value).encode() for key, value in context.invocation_metadata()}
                if not is_authorized(metadata, self._token):
                    raise RefusedError(*_NO_TOKEN)
            yield call
        finally:
            self._places.leave(call)

    async def _receive(self, requests: AsyncIterator[bytes], call: Call) -> bytes:
        """Return the one request of a call.

        Raises:
            RefusedError: the call has lost its place, or it ends without a request.
        """
        try:
            return await anext(requests)
        except StopAsyncIteration:
            raise invalid("the call has no request") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not call.hung_up or task is None:
                raise
            task.uncancel()
            raise RefusedError(*_SILENT) from None
        finally:
            self._places.work(call)

    def _unary(self, descriptor: Any, method: Method) -> Callable[[AsyncIterator[bytes], Any], Awaitable[bytes]]:
        """Return the handler of a method with one request and one response."""
        request_type, response_type = _message_types(descriptor)
        is_open, path = descriptor.name in OPEN_METHODS, _path(descriptor)

        async def handle(requests: AsyncIterator[bytes], context: Any) -> bytes:
            with self._requests.request(GRPC, path) as entry:
                if entry.id:
                    context.set_trailing_metadata((("x-request-id", entry.id),))
                try:
                    with self._place(context, is_open=is_open) as call:
                        request = await _parse(request_type, await self._receive(requests, call))
                        response = _serialise(await method(request, context), response_type)
                    entry.status = 200
                    return response
                except Exception as error:
                    refused = _as_refusal(error)
                    entry.status = refused.reason.http
            return await _abort(context, refused)

        return handle

    def _stream(self, descriptor: Any, method: Method) -> Callable[[AsyncIterator[bytes], Any], Awaitable[None]]:
        """Return the handler of a stream. Responses are in the order of requests; a refusal concerns one request."""
        request_type, response_type = _message_types(descriptor)

        async def respond(blob: bytes, context: Any) -> bytes:
            request = request_type()
            with self._requests.request(GRPC, _path(descriptor)) as entry:
                try:
                    request = await _parse(request_type, blob)
                    response = response_type(infer_response=await method(request, context))
                    entry.status = 200
                except Exception as error:
                    refused = _as_refusal(error)
                    entry.status = refused.reason.http
                    response = response_type(error_message=_message(refused), infer_response={"id": request.id})
            return bytes(response.SerializeToString())

        async def handle(requests: AsyncIterator[bytes], context: Any) -> None:
            try:
                with self._place(context) as call:
                    await self._answer_each(requests, context, call, respond)
            except RefusedError as refused:
                await _abort(context, refused)
            except ExceptionGroup as group:  # the library knows its own error of a client that has left
                raise group.exceptions[0] from None

        return handle

    async def _answer_each(self, requests: AsyncIterator[bytes], context: Any, call: Call, respond: Respond) -> None:
        responses: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        window = asyncio.Semaphore(STREAM_WINDOW)

        async def read() -> None:
            async for blob in requests:
                # No await before this: `close` may cancel the reader at any await, and no request may be lost.
                responses.put_nowait(group.create_task(respond(blob, context)))
                self._places.work(call)
                await window.acquire()

        async def write() -> None:
            while (task := await responses.get()) is not None:
                blob = await task
                self._places.wait(call)  # the client must read the response
                await context.write(blob)
                window.release()
                if not responses.empty():
                    self._places.work(call)

        async with asyncio.TaskGroup() as group:
            writer = group.create_task(write())
            call.task = reader = group.create_task(read())
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
            await asyncio.wait([reader])
            responses.put_nowait(None)
            if call.hung_up:
                writer.cancel()
        if reader.cancelled():
            raise RefusedError(*(_SILENT if call.hung_up else _STOPPING))


def _path(descriptor: Any) -> str:
    return f"/{descriptor.containing_service.full_name}/{descriptor.name}"


def _message_types(descriptor: Any) -> tuple[Any, Any]:
    return MESSAGES[descriptor.input_type.full_name], MESSAGES[descriptor.output_type.full_name]


def _host(peer: str) -> str:
    """Return the address in gRPC's name of a client, such as ipv4:127.0.0.1:5000 or ipv6:%5B::1%5D:5000."""
    return urllib.parse.unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


async def _parse(message_type: Any, blob: bytes) -> Any:
    """Return the message in bytes."""
    try:
        return await aside(len(blob), partial(message_type.FromString, blob))
    except DecodeError as error:
        raise invalid(f"the request is not a valid message of type {message_type.DESCRIPTOR.name}") from error


def _serialise(response: Any, message_type: Any) -> bytes:
    if isinstance(response, dict):
        response = ParseDict(response, message_type(), ignore_unknown_fields=True)
    return bytes(response.SerializeToString())


def _as_refusal(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    log.error("gRPC: a call failed", exc_info=error)
    return RefusedError(Reason.INTERNAL, "the service failed; its log says why")


async def _abort(context: Any, refused: RefusedError) -> NoReturn:
    await context.abort(grpc.StatusCode[refused.reason.grpc], _message(refused))
    raise AssertionError("abort has raised")


def _message(refused: RefusedError) -> str:
    return str(refused).encode()[:MESSAGE_BYTES].decode(errors="ignore")
