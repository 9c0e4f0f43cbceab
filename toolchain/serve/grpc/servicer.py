"""The service over gRPC: the Open Inference Protocol with Triton's extensions, and gRPC's own health check."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from toolchain.errors import InputError
from toolchain.serve.checks import check_statistics
from toolchain.serve.grpc.calls import Door
from toolchain.serve.grpc.codec import to_message, to_request
from toolchain.serve.proto import HEALTH, INFERENCE
from toolchain.serve.protocol import Reason, RefusedError
from toolchain.serve.tls import open_tls

if TYPE_CHECKING:
    from toolchain.serve.server import Tls
    from toolchain.serve.service import Service

STREAMS = 1024
"""Calls of one connection that are under way together."""

REFUSING_S = 0.2
"""How long calls are refused in words before the connections are ended: whose call crosses that end hears CANCELLED,
which looks like an own doing and which no client asks again after."""

OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second server takes half the calls of a port that is in use
    ("grpc.max_concurrent_streams", STREAMS),
    ("grpc.keepalive_time_ms", 60_000),  # a client that is gone without a word is found out
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # a client that asks more often is sent away
    ("grpc.server_handshake_timeout_ms", 10_000),
)


@dataclass(frozen=True)
class GrpcServer:
    """A server that runs, and the port that it took."""

    server: Any
    port: int
    door: Door

    async def stop(self, grace: float) -> None:
        """Take no more calls nor more of a stream, and cancel what is not done after `grace` seconds."""
        self.door.close()
        await asyncio.sleep(min(grace, REFUSING_S))
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
    open_tls(tls.cert, tls.key)  # gRPC takes anything, and says only that the port cannot be had
    return grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])


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
