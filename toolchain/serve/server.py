"""One process that serves: the service, HTTP and gRPC in one event loop, from the first listener to the last answer.

A signal first makes readiness answer 503, so that load balancers send no more; for a while all that still comes is
answered; then the listeners close, what is in flight ends, and the process with it. A second signal ends it at once.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
from uvicorn.server import ServerState

from toolchain.serve.gpus import Gpus, open_gpus
from toolchain.serve.grpc.servicer import serve_grpc
from toolchain.serve.guard import is_loopback
from toolchain.serve.http.app import Application
from toolchain.serve.http.connection import MOST, Busy, Connection, sweep
from toolchain.serve.limits import GRACE_S
from toolchain.serve.listener import bind, ignore_clients, let_clients_in, shown, waiting
from toolchain.serve.tls import open_tls

if TYPE_CHECKING:
    from toolchain.serve.service import Service

log = logging.getLogger("toolchain")

IDLE_S = 20
"""How long a client may be silent, in a request or between two."""
_LAST_S = 2.0
"""For requests that are on their way when the listener closes."""
_HANDSHAKE_S = 0.2
"""For clients whose connection is being made when the listener closes: more than the way there and back."""
_TICK_S = 0.01
SWITCH_S = 1e-4
"""How long a thread keeps Python's lock from another: an engine that is done with a small batch waits for it, and
Python's own 5 ms are longer than the batch."""


@dataclass(frozen=True)
class Tls:
    """A certificate chain and its key, both PEM."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Options:
    """Where to listen, and what to ask of clients. Port 0 is any free one; no gRPC port is no gRPC."""

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int | None = 8001
    token: str | None = None
    tls: Tls | None = None
    drain_s: float = 5.0


@dataclass(frozen=True)
class Started:
    """What is served where: the name of the model, the URL of the page, and the address of gRPC."""

    name: str
    http: str
    grpc: str | None


class Server(Protocol):
    """A listener that ends what is in flight before it stops."""

    async def stop(self, grace: float) -> None:
        """Take no more, and return when all is answered, or after `grace` seconds."""


class HttpServer:
    """uvicorn's connections behind a listener of our own, which opens and closes when we say so."""

    def __init__(self, service: "Service", listener: socket.socket, options: Options, gpus: Gpus | None = None) -> None:
        """Make it for a bound socket.

        Raises:
            InputError: the certificate or its key cannot be used.
        """
        self.state, self.socket = ServerState(), listener
        self.application = Application(service, token=options.token, gpus=gpus)
        tls = options.tls
        self.config = uvicorn.Config(
            self.application,
            http=Connection,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_S,
        )
        self.config.load()
        self.config.ssl = open_tls(tls.cert, tls.key) if tls else None

    async def start(self) -> None:
        """Listen."""
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        self.listener = await loop.create_server(
            self._connect, sock=self.socket, ssl=tls, backlog=2048, ssl_handshake_timeout=IDLE_S if tls else None
        )
        let_clients_in(self.socket)
        self.chores = asyncio.create_task(self._chores())

    def _connect(self) -> asyncio.Protocol:
        if len(self.state.connections) >= MOST:
            return Busy()
        return Connection(self.config, self.state, {})

    async def _chores(self) -> None:
        """Keep the header Date, and hang up on clients that do nothing."""
        silent: dict[Any, Any] = {}
        seconds = 0
        while True:
            self.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            await asyncio.sleep(1)
            seconds += 1
            if seconds % IDLE_S == 0:
                silent = sweep(list(self.state.connections), silent)

    async def stop(self, grace: float) -> None:
        """Take no more, and return when all is answered, or after `grace` seconds; then nobody is connected."""
        await self._close(min(grace, _HANDSHAKE_S))
        await self._emptied(min(grace, _LAST_S))
        for connection in list(self.state.connections):
            connection.shutdown()
        await self._emptied(grace)
        for connection in list(self.state.connections):
            connection.transport.abort()
        self.chores.cancel()

    async def _close(self, seconds: float) -> None:
        """Close the listener, once all clients that the system has let in are accepted: closing resets the others."""
        if not self.listener.is_serving():
            return
        ignore_clients(self.socket)
        await asyncio.sleep(seconds)
        if not self.listener.is_serving():
            return  # closed meanwhile, at a second signal
        with self.socket.dup() as rest:
            self.listener.close()
            taken = waiting(rest)
        join = partial(asyncio.get_running_loop().connect_accepted_socket, self._connect, ssl=self.config.ssl)
        await asyncio.gather(*map(join, taken), return_exceptions=True)

    async def _emptied(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self.state.connections and loop.time() < end:
            await asyncio.sleep(_TICK_S)


async def serve(
    opened: AbstractAsyncContextManager["Service"], options: Options, *, started: Callable[[Started], None]
) -> None:
    """Serve until a signal ends it, and return when all that was taken is answered.

    `started` is told once both listeners are open.

    Raises:
        InputError: a port cannot be had, or the certificate cannot be used.
        UsageError: the host has no address.
    """
    if not is_loopback(options.host) and not options.token:
        log.warning(
            "%s: whoever can reach this machine can use the model. Give --token-file, or a proxy.", options.host
        )
    if options.tls:  # told before the model is loaded
        open_tls(options.tls.cert, options.tls.key)
    sys.setswitchinterval(SWITCH_S)
    with bind(options.host, options.http_port) as listener:
        async with opened as service:
            with open_gpus(service.device) as gpus:
                http = HttpServer(service, listener, options, gpus)
                servers: list[Server] = [http]
                address = None
                if options.grpc_port is not None:
                    grpc = await serve_grpc(
                        service, options.host, options.grpc_port, token=options.token, tls=options.tls
                    )
                    servers.append(grpc)
                    address = f"{shown(options.host)}:{grpc.port}"
                await http.start()
                signals = Signals()
                started(Started(service.name, _url(options, listener), address))
                await signals.first.wait()
                service.drain()
                http.application.closing = True
                log.info("ending: answering for %g s more; once again to end at once", options.drain_s)
                await _end(servers, signals, options.drain_s, service.limits.timeout_s + GRACE_S)


def _url(options: Options, listener: socket.socket) -> str:
    return f"{'https' if options.tls else 'http'}://{shown(options.host)}:{listener.getsockname()[1]}"


class Signals:
    """The first and the second signal that asks for the end."""

    def __init__(self) -> None:
        """Listen to them from now on."""
        self.first, self.second = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._came)

    def _came(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def _end(servers: list[Server], signals: Signals, drain_s: float, grace_s: float) -> None:
    """Go on for a while, then end what is in flight; at the second signal, at once."""

    async def drain() -> None:
        await asyncio.sleep(drain_s)
        await _stop(servers, grace_s)

    draining, again = asyncio.create_task(drain()), asyncio.create_task(signals.second.wait())
    await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if draining.done():
        return await draining
    draining.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await draining
    return await _stop(servers, 0)


async def _stop(servers: list[Server], grace_s: float) -> None:
    await asyncio.gather(*(server.stop(grace_s) for server in servers))
