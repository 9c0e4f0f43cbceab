"""The gRPC server and its methods: the Open Inference Protocol with Triton's extensions, and gRPC's health check."""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from toolchain.errors import InputError
from toolchain.records.serving import ModelState
from toolchain.serve.aside import aside
from toolchain.serve.checks import check_model, check_statistics
from toolchain.serve.grpc.calls import Call, CallHandler
from toolchain.serve.grpc.codec import to_message, to_request
from toolchain.serve.limits import GRPC_IDLE_S, MAX_CALLS, MAX_GRPC_CONNECTIONS
from toolchain.serve.listener import host_in_url
from toolchain.serve.places import Places
from toolchain.serve.proto import HEALTH, INFERENCE
from toolchain.serve.protocol import Reason, RefusedError
from toolchain.serve.request_log import OFF, RequestLog
from toolchain.serve.tls import Tls, open_tls

if TYPE_CHECKING:
    from toolchain.serve.service import Service

log = logging.getLogger(__name__)

# Seconds without a call in progress after which the connections close at shutdown. New calls are refused with
# UNAVAILABLE until then. A call that arrives while its connection closes may end with CANCELLED, and clients do not try
# again after that.
REFUSE_S = 0.2

# Seconds between two checks at shutdown for calls that are still being answered.
POLL_S = 0.02

OPTIONS = (
    ("grpc.so_reuseport", 0),  # otherwise a second server could share a port in use and take half of its calls
    ("grpc.max_concurrent_streams", MAX_CALLS),
    ("grpc.max_allowed_incoming_connections", MAX_GRPC_CONNECTIONS),
    ("grpc.max_connection_idle_ms", round(GRPC_IDLE_S * 1000)),  # a client connects again with its next call
    ("grpc.keepalive_time_ms", 60_000),  # detects clients that disappeared without closing the connection
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # disconnects clients that ping more often
    ("grpc.server_handshake_timeout_ms", 10_000),
)


class GrpcServer:
    """The gRPC server of a service, on one port."""

    def __init__(
        self,
        service: "Service",
        host: str,
        port: int,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        requests: RequestLog = OFF,
    ) -> None:
        """Bind a port, or any free one if `port` is 0. `start` then accepts calls.

        Callers must send `token` as metadata `authorization: Bearer TOKEN`, except for health checks.

        Raises:
            InputError: the certificate or its key cannot be used, or the port is not available.
        """
        # More places than the queue has rows, so that a full queue is noticed first, and the refusal says so.
        self._places = Places[Call](2 * service.limits.max_queue + MAX_CALLS)
        self._handler, methods = CallHandler(token, self._places, requests), Methods(service)
        self._handlers = [self._handler.handlers(name, methods) for name in (INFERENCE, HEALTH)]
        self._options = (*OPTIONS, ("grpc.max_receive_message_length", service.limits.max_body_bytes))
        self._host, self._tls = host, tls
        self.server, self.port = self._listen(port)

    def _listen(self, port: int) -> tuple[Any, int]:
        """Return a new server, and the number of the port that it has bound."""
        server = grpc.aio.server(options=self._options)
        server.add_generic_rpc_handlers(self._handlers)
        address, tls = f"{host_in_url(self._host)}:{port}", self._tls
        try:
            bound = server.add_secure_port(address, _credentials(tls)) if tls else server.add_insecure_port(address)
        except RuntimeError as error:
            raise InputError(
                f"{address}: the port is not available. Choose another port with --grpc-port, or 0 for any free one."
            ) from error
        return server, bound

    async def start(self) -> None:
        """Start accepting calls."""
        await self.server.start()
        self._maintenance = asyncio.create_task(self._maintain())

    async def _maintain(self) -> None:
        """End calls that wait too long for their request, and restart the server if it stops by itself.

        This runs until `stop`.
        """
        is_running = True
        while is_running:
            try:
                is_running = await self.server.wait_for_termination(1)
            # One call whose method name is not UTF-8 makes grpcio's loop over calls end with an error.
            except Exception as error:
                log.error("gRPC: the server stopped because of an error (%s) and is restarted", type(error).__name__)
                await self.server.stop(None)
                self.server, _ = self._listen(self.port)
                await self.server.start()
            self._places.hang_up_silent(GRPC_IDLE_S)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls and more requests of open streams; close the connections when calls in flight are answered.

        Health checks are answered until the connections close. Calls that are unfinished after `grace_s` seconds are
        cancelled.
        """
        clock = asyncio.get_running_loop().time
        end_s = clock() + grace_s
        self._handler.close()
        await until_quiet(self._places, end_s)
        self._maintenance.cancel()
        await self.server.stop(max(0.0, end_s - clock()))


async def until_quiet(places: Places[Any], end_s: float) -> None:
    """Wait until no request was being answered for `REFUSE_S` seconds, or until the event loop's time is `end_s`.

    The wait outlasts the last response, because its client may send the next call as soon as it has the response. A
    stream has short pauses between responses while further requests of it are due.
    """
    clock = asyncio.get_running_loop().time
    worked_s = clock()
    while (now_s := clock()) < end_s and (places.working or now_s < worked_s + REFUSE_S):
        if places.working:
            worked_s = now_s
        await asyncio.sleep(min(POLL_S, end_s - now_s))


def _credentials(tls: Tls) -> Any:
    # The files are checked here, because gRPC would report a wrong file as a port that is not available.
    open_tls(tls.cert, tls.key)
    return grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])


@dataclass(frozen=True)
class Methods:
    """The RPC methods of the inference protocol and of gRPC's health check, by their names in snake case.

    Each method takes the request message and gRPC's context. It returns the response message, or a dict with the fields
    of that message.
    """

    service: "Service"

    async def server_live(self, _: Any, __: Any) -> Any:
        return {"live": self.service.alive}

    async def server_ready(self, _: Any, __: Any) -> Any:
        return {"ready": self.service.ready}

    async def model_ready(self, request: Any, _: Any) -> Any:
        try:
            check_model(self.service.name, request.name, request.version)
        except RefusedError as refused:
            if refused.reason is not Reason.NOT_FOUND:
                raise
            return {"ready": False}  # Triton's response for an unknown model, instead of an error
        return {"ready": self.service.ready}

    async def server_metadata(self, _: Any, __: Any) -> Any:
        return self.service.description.server

    async def model_metadata(self, request: Any, _: Any) -> Any:
        check_model(self.service.name, request.name, request.version)
        return self.service.description.model

    async def model_config(self, request: Any, _: Any) -> Any:
        check_model(self.service.name, request.name, request.version)
        return {"config": self.service.description.config}

    async def model_statistics(self, request: Any, _: Any) -> Any:
        check_statistics(self.service.name, request.name or self.service.name, request.version)
        return self.service.statistics()

    async def model_infer(self, request: Any, context: Any) -> Any:
        check_model(self.service.name, request.model_name, request.model_version)
        left_s = context.time_remaining()
        left_us = 0 if left_s is None else max(1, round(left_s * 1e6))
        translate = partial(to_request, request, left_us=left_us)
        response = await self.service.infer(await aside(request.ByteSize(), translate))
        return await aside(response.size, partial(to_message, response))

    async def repository_index(self, request: Any, _: Any) -> Any:
        state = "READY" if self.service.ready else "UNAVAILABLE"
        model = ModelState(name=self.service.name, version=self.service.version, state=state)
        return {"models": [] if request.ready and not self.service.ready else [model]}

    async def repository_model_load(self, _: Any, __: Any) -> Any:
        raise RefusedError(
            Reason.UNAVAILABLE,
            "explicit model load / unload is not allowed: the service has one model, which it loaded at its start",
        )

    repository_model_unload = repository_model_load

    async def check(self, request: Any, _: Any) -> Any:
        if request.service not in ("", INFERENCE, HEALTH):
            raise RefusedError(Reason.NOT_FOUND, "unknown service")
        return {"status": "SERVING" if self.service.ready else "NOT_SERVING"}
