"""The process of `toolchain serve`: the service, HTTP and gRPC in one event loop, from start to shutdown.

At SIGINT, SIGTERM or SIGHUP, the readiness check first responds 503, so that load balancers send no more requests.
Requests are still answered for `drain_s` seconds. Then the HTTP socket closes, and gRPC refuses new calls. When the
requests in flight are answered, the gRPC port closes and the process ends. A second signal ends it at once.
"""

import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain.records.serving import Endpoints
from toolchain.serve.auth import is_loopback
from toolchain.serve.gpus import Gpus, open_gpus
from toolchain.serve.grpc.servicer import GrpcServer
from toolchain.serve.http.app import Application
from toolchain.serve.http.server import HttpServer
from toolchain.serve.limits import GRACE_S, MAX_CONNECTIONS, MAX_GRPC_CONNECTIONS, SPARE_PLACES
from toolchain.serve.listener import bind, host_in_url
from toolchain.serve.request_log import RequestLog
from toolchain.serve.tls import Tls, open_tls

if TYPE_CHECKING:
    from toolchain.serve.service import Service

log = logging.getLogger("toolchain")

# File descriptors that the process may need: one for each HTTP and gRPC connection, and 256 for its own files.
DESCRIPTORS = MAX_CONNECTIONS + SPARE_PLACES + MAX_GRPC_CONNECTIONS + 256

# Seconds for which a thread may hold Python's global lock while another thread waits for it. An engine needs the lock
# when it has finished a batch, and Python's default of 5 ms is longer than a small batch takes.
SWITCH_INTERVAL_S = 1e-4


@dataclass(frozen=True)
class ServerOptions:
    """The options of both servers: addresses, token, TLS, the time to drain, and the form of the request log.

    Port 0 means any free port.
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    # None disables gRPC.
    grpc_port: int | None = 8001
    token: str | None = None
    tls: Tls | None = None
    drain_s: float = 5.0
    # The form of the request log: off, text or json.
    log: str = "off"


async def serve(
    opened: AbstractAsyncContextManager["Service"], options: ServerOptions, *, on_started: Callable[[Endpoints], None]
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, and return when all accepted requests are answered.

    Args:
        opened: a context manager that opens the service, such as `open_service(...)`.
        options: addresses, token and TLS.
        on_started: called once with the addresses of the servers, when both accept requests.

    Raises:
        InputError: a port is not available, or the certificate cannot be used.
        UsageError: the host has no address.
    """
    if not is_loopback(options.host) and not options.token:
        log.warning(
            "%s: everyone who can reach this machine can use the model. Give --token-file, or put a proxy in front.",
            options.host,
        )
    if options.tls:  # a wrong certificate is reported before the model is loaded, which takes long
        open_tls(options.tls.cert, options.tls.key)
    allow_descriptors()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with bind(options.host, options.http_port) as listener:
        async with opened as service:
            with open_gpus(service.device) as gpus:
                http, grpc, url = await _start(service, listener, gpus, options)
                servers: list[HttpServer | GrpcServer] = [http, *([grpc] if grpc else [])]
                signals = _queue_signals()
                grpc_address = f"{host_in_url(options.host)}:{grpc.port}" if grpc else None
                example = service.shown.without_rows().bodies[0]  # no rows: others can read the logs
                gc.collect()
                # Otherwise each full collection would scan all objects of the imported modules, which blocks the event
                # loop for 0.2 s.
                gc.freeze()
                on_started({"name": service.name, "http": url, "grpc": grpc_address, "example": example})
                await signals.get()
                service.drain()
                http.application.closing = True
                log.info(
                    "shutting down: new requests are answered for %g s more; a second signal stops the service at once",
                    options.drain_s,
                )
                await _shut_down(servers, signals, options.drain_s, service.limits.timeout_s + GRACE_S)


def allow_descriptors() -> None:
    """Raise this process's limit on open files, so that every connection can have a descriptor.

    Without a free descriptor, the server could not accept a new client, and so would not disconnect a silent one to
    make room.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < DESCRIPTORS:
        log.warning(
            "this process may open %d files, and its connections may need %d: silent clients could keep others from "
            "connecting. Raise the limit before the start: ulimit -n %d",
            allowed,
            DESCRIPTORS,
            DESCRIPTORS,
        )


async def _start(
    service: "Service", listener: socket.socket, gpus: Gpus, options: ServerOptions
) -> tuple[HttpServer, GrpcServer | None, str]:
    """Start both servers; return them and the URL of the HTTP server. Without a gRPC port, the gRPC server is None."""
    requests, grpc = RequestLog(options.log), None
    token, tls, public = options.token, options.tls, not is_loopback(options.host)
    application = Application(service, token=token, gpus=gpus, public=public, requests=requests)
    http = HttpServer(application, listener, tls=tls)
    if options.grpc_port is not None:
        grpc = GrpcServer(service, options.host, options.grpc_port, token=token, tls=tls, requests=requests)
        await grpc.start()
    await http.start()
    scheme = "https" if tls else "http"
    return http, grpc, f"{scheme}://{host_in_url(options.host)}:{listener.getsockname()[1]}"


def _queue_signals() -> asyncio.Queue[None]:
    """Return a queue that gets an entry at each SIGINT, SIGTERM and SIGHUP."""
    signals: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, None)
    return signals


async def _shut_down(
    servers: list[HttpServer | GrpcServer], signals: asyncio.Queue[None], drain_s: float, grace_s: float
) -> None:
    """Wait `drain_s` seconds, then stop the servers within `grace_s` seconds; at a second signal, stop them at once."""

    async def stop(after_s: float, grace_s: float) -> None:
        await asyncio.sleep(after_s)
        await asyncio.gather(*(server.stop(grace_s) for server in servers))

    draining, hurry = asyncio.create_task(stop(drain_s, grace_s)), asyncio.create_task(signals.get())
    await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not draining.done():
        draining.cancel()
        await asyncio.wait([draining])
        draining = asyncio.create_task(stop(0, 0))
    await draining
