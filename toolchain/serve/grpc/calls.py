"""The handling of each gRPC call around its method: admission, token, parsing, serialisation, and refusals.

gRPC's library passes each request as bytes. They are parsed here, so that invalid bytes get a plain refusal. Whatever
goes wrong, the client sees a message of the service and never the text of an exception. Even a method with a single
request is registered as a stream, so that its handler starts before the request arrives. Such a call has a place
(places.py) from the start, and can be ended if its request never comes.
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

# Methods that need no token, because orchestrators call them to check the service's health.
OPEN_METHODS = {"ServerLive", "ServerReady", "Check"}

# What the request log has as the method of a gRPC call, where it has GET or POST for an HTTP request.
GRPC = "gRPC"

# Longest message of a refusal, in bytes. gRPC sends it percent-encoded, which can triple its size, in headers of at
# most 8 KiB.
MESSAGE_BYTES = 1300

_SILENT = Reason.EXHAUSTED, "The client sent no request, or read no response, for too long"
_BUSY = Reason.EXHAUSTED, "too many calls"
_NO_TOKEN = Reason.UNAUTHENTICATED, "this service requires a token: send it as metadata, authorization: Bearer TOKEN"
_STOPPING = Reason.UNAVAILABLE, "Server is stopping, no new requests are accepted"

# An RPC method: it takes the request message and gRPC's context, and returns the response message or a dict of its
# fields.
Method = Callable[[Any, Any], Awaitable[Any]]

# A function that takes one request of a stream, as bytes, and gRPC's context, and returns the response, as bytes.
Respond = Callable[[bytes, Any], Coroutine[Any, Any, bytes]]


class Call:
    """A gRPC call in progress. `task` is the asyncio task that waits for the client's next request."""

    def __init__(self, task: "asyncio.Task[Any] | None") -> None:
        self.task, self.hung_up = task, False

    def hang_up(self) -> None:
        """End the call: cancel the task that waits for its next request."""
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
        """Return the object with which a service is registered in gRPC.

        `service` is the service's full name. For each RPC, `methods` has a method with its name in snake case.
        """
        by_name = {method.name: self._handler(method, methods) for method in SERVICES[service].methods}
        return grpc.method_handlers_generic_handler(service, by_name)

    def _handler(self, descriptor: Any, methods: Any) -> Any:
        if descriptor.name == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream(descriptor, methods.model_infer))
        method = getattr(methods, re.sub(r"(?<!^)(?=[A-Z])", "_", descriptor.name).lower())
        return grpc.stream_unary_rpc_method_handler(self._unary(descriptor, method))

    @contextmanager
    def _place(self, context: Any, *, is_open: bool = False) -> Iterator[Call]:
        """Give the current task's call a place (places.py), and yield the call.

        `is_open` is True for health checks. They need no token, and are answered at shutdown and when all regular
        places are taken.

        Raises:
            RefusedError: there are too many calls, the service is stopping, or the call lacks the token.
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
        """Return the one request of a call, as bytes.

        Raises:
            RefusedError: the call was ended because its client was silent, or it ends without a request.
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
        """Return the gRPC handler of a method with one request and one response."""
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
        """Return the gRPC handler of a method with streams of requests and responses.

        Responses are in the order of the requests. A refused request does not end the stream.
        """
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
            except ExceptionGroup as group:  # gRPC handles its error for a client that has left only outside a group
                raise group.exceptions[0] from None

        return handle

    async def _answer_each(self, requests: AsyncIterator[bytes], context: Any, call: Call, respond: Respond) -> None:
        responses: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        window = asyncio.Semaphore(STREAM_WINDOW)

        async def read() -> None:
            async for blob in requests:
                # There must be no await between a request's arrival and the next line: `close` may cancel this task at
                # any await, and the request would be lost.
                responses.put_nowait(group.create_task(respond(blob, context)))
                self._places.work(call)
                await window.acquire()

        async def write() -> None:
            while (task := await responses.get()) is not None:
                blob = await task
                self._places.wait(call)  # the client is silent until it reads the response
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
    """Return the IP address of a client.

    `peer` is gRPC's name of the client, such as ipv4:127.0.0.1:5000 or ipv6:%5B::1%5D:5000.
    """
    return urllib.parse.unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


async def _parse(message_type: Any, blob: bytes) -> Any:
    """Return the message that `blob` contains.

    Raises:
        RefusedError: `blob` is not a message of this type.
    """
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
    return RefusedError(Reason.INTERNAL, "the service failed on this call; the log of the service has the reason")


async def _abort(context: Any, refused: RefusedError) -> NoReturn:
    await context.abort(grpc.StatusCode[refused.reason.grpc], _message(refused))
    raise AssertionError("abort has raised")


def _message(refused: RefusedError) -> str:
    return str(refused).encode()[:MESSAGE_BYTES].decode(errors="ignore")
