"""The service over gRPC: the Open Inference Protocol with Triton's extensions, and gRPC's own health check.

A call's bytes are parsed here and not by the library, so that bytes which are no message are refused as such. Whatever
goes wrong, the client sees one of our messages and never an exception's text.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from toolchain.errors import InputError
from toolchain.serve.checks import check_statistics
from toolchain.serve.guard import allowed
from toolchain.serve.proto import HEALTH, INFERENCE, MESSAGES, SERVICES
from toolchain.serve.protocol import Reason, RefusedError
from toolchain.serve.translate import to_message, to_request

if TYPE_CHECKING:
    from toolchain.serve.server import Tls
    from toolchain.serve.service import Service

log = logging.getLogger(__name__)

OPEN = {"ServerLive", "ServerReady", "Check"}
"""What needs no token: an orchestrator asks it."""

STREAM_WINDOW = 64
"""Requests of one stream that are under way together; the rest waits in the client."""

STREAMS = 1024
"""Calls of one connection that are under way together."""

MESSAGE_BYTES = 1300
"""Of a refusal: it travels in a header of 8 KiB, where a byte may become three."""

OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second server takes half the calls of a port that is in use
    ("grpc.max_concurrent_streams", STREAMS),
    ("grpc.keepalive_time_ms", 60_000),  # a client that is gone without a word is found out
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # a client that asks more often is sent away
    ("grpc.server_handshake_timeout_ms", 10_000),
)

Answer = Callable[[Any, Any], Awaitable[Any]]
"""A request's message and its context -> the answer as a message, or as what JSON would have for it."""


@dataclass(frozen=True)
class GrpcServer:
    """A server that runs, and the port that it took."""

    server: Any
    port: int
    door: "Door"

    async def stop(self, grace: float) -> None:
        """Take no more calls nor more of a stream, and cancel what is not done after `grace` seconds."""
        self.door.close()
        await self.server.stop(grace)


async def serve_grpc(
    service: "Service", host: str, port: int, *, token: str | None = None, tls: "Tls | None" = None
) -> GrpcServer:
    """Start to answer gRPC.

    Args:
        service: what answers.
        host: the address to listen at.
        port: 0 for any that is free.
        token: what callers must show as metadata `authorization: Bearer <token>`, but for health and readiness.
        tls: the certificate chain and its key.

    Raises:
        InputError: a file of `tls` cannot be used, or the port cannot be had.
    """
    limits = service.limits
    server = grpc.aio.server(
        options=(*OPTIONS, ("grpc.max_receive_message_length", limits.max_body_bytes)),
        # The service refuses what is over its own bound sooner, and in better words.
        maximum_concurrent_rpcs=2 * limits.max_queue + STREAMS,
    )
    door = Door(token)
    methods = Methods(service)
    server.add_generic_rpc_handlers((door.handlers(INFERENCE, methods), door.handlers(HEALTH, methods)))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(address, _credentials(tls)) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        what = "cannot be listened at. Choose another port with --grpc-port, or 0 for any free one."
        raise InputError(f"{address}: {what}") from error
    await server.start()
    return GrpcServer(server, bound, door)


def _credentials(tls: "Tls") -> Any:
    try:
        pair = tls.key.read_bytes(), tls.cert.read_bytes()
        # gRPC takes anything, and says only that the port cannot be had. A key with a password is not asked for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password="")
    except OSError as error:  # of ssl too, which has no words for a user
        what = "with its key no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        where = error.filename or tls.cert
        raise InputError(f"{where}: {what}. Give PEM files with --tls-cert and --tls-key.") from error
    return grpc.ssl_server_credentials([pair])


@dataclass(frozen=True)
class Methods:
    """What each method of both protocols answers; named as the protocol's, in lower case."""

    service: "Service"

    async def server_live(self, _: Any, __: Any) -> Any:
        return {"live": self.service.alive}

    async def server_ready(self, _: Any, __: Any) -> Any:
        return {"ready": self.service.ready}

    async def model_ready(self, request: Any, _: Any) -> Any:
        try:
            self.service.check(request.name, request.version)
        except RefusedError as refused:
            if refused.reason is not Reason.NOT_FOUND:
                raise
            return {"ready": False}  # as Triton: that there is none such is an answer
        return {"ready": self.service.ready}

    async def server_metadata(self, _: Any, __: Any) -> Any:
        return self.service.server_metadata()

    async def model_metadata(self, request: Any, _: Any) -> Any:
        self.service.check(request.name, request.version)
        return self.service.model_metadata()

    async def model_config(self, request: Any, _: Any) -> Any:
        self.service.check(request.name, request.version)
        return {"config": self.service.model_config()}

    async def model_statistics(self, request: Any, _: Any) -> Any:
        check_statistics(self.service.name, request.name or self.service.name, request.version)
        return self.service.statistics()

    async def model_infer(self, request: Any, context: Any) -> Any:
        self.service.check(request.model_name, request.model_version)
        left_s = context.time_remaining()
        left_us = 0 if left_s is None else max(1, round(left_s * 1e6))
        return to_message(await self.service.infer(to_request(request, left_us=left_us)))

    async def repository_index(self, request: Any, _: Any) -> Any:
        state = "READY" if self.service.ready else "UNAVAILABLE"
        model = {"name": self.service.name, "version": self.service.version, "state": state}
        return {"models": [] if request.ready and not self.service.ready else [model]}

    async def repository_model_load(self, _: Any, __: Any) -> Any:
        raise RefusedError(
            Reason.UNAVAILABLE, "explicit model load / unload is not allowed: the service keeps the model it began with"
        )

    repository_model_unload = repository_model_load

    async def check(self, request: Any, _: Any) -> Any:
        if request.service not in ("", INFERENCE, HEALTH):
            raise RefusedError(Reason.NOT_FOUND, "unknown service")
        return {"status": "SERVING" if self.service.ready else "NOT_SERVING"}


class Door:
    """Lets calls in: looks at the token, parses what comes and packs what leaves."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._reading: set[asyncio.Task[None]] = set()
        """What waits for the next request of a stream."""

    def close(self) -> None:
        """Take no more of the streams that are open: each ends once what it asked so far is answered."""
        for task in self._reading:
            task.cancel()

    def handlers(self, name: str, methods: Methods) -> Any:
        """Return gRPC's handlers of a service of the protocol."""
        found = {method.name: self._handler(method, methods) for method in SERVICES[name].methods}
        return grpc.method_handlers_generic_handler(name, found)

    def _handler(self, method: Any, methods: Methods) -> Any:
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
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Server is stopping, no new inference requests")

        return handle

    def _refused(self, context: Any) -> RefusedError | None:
        """Return the refusal of a caller who does not show the token."""
        if not self._token:
            return None
        metadata = {key.encode(): str(value).encode() for key, value in context.invocation_metadata()}
        if allowed(metadata, self._token):
            return None
        return RefusedError(
            Reason.UNAUTHENTICATED, "this service needs its token: metadata authorization: Bearer TOKEN"
        )


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
