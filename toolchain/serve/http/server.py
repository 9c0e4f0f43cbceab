"""The HTTP server: uvicorn's connections behind a listening socket that opens and closes when the service says so."""

import asyncio
import socket
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.server import ServerState

from toolchain.serve.gpus import Gpus
from toolchain.serve.http.app import Application
from toolchain.serve.http.connection import MAX_CONNECTIONS, BusyConnection, Connection, close_idle
from toolchain.serve.listener import accept_pending, drop_new_clients, let_clients_connect
from toolchain.serve.request_log import OFF, RequestLog
from toolchain.serve.tls import Tls, open_tls

if TYPE_CHECKING:
    from toolchain.serve.service import Service

# How long a client may do nothing, during a request or between two. Also the longest TLS handshake.
IDLE_S = 20

# At shutdown, how long requests may still arrive on connections that are open.
_LAST_REQUESTS_S = 2.0

# At shutdown, how long a TCP handshake that has begun may take to complete: more than a round trip.
_HANDSHAKE_S = 0.2

_POLL_S = 0.01


class HttpServer:
    """An HTTP server on a bound socket."""

    def __init__(
        self,
        service: "Service",
        listener: socket.socket,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        gpus: Gpus | None = None,
        public: bool = False,
        requests: RequestLog = OFF,
    ) -> None:
        """Make the server; `start` opens it.

        Args:
            service: the service that responds.
            listener: a socket from `listener.bind`.
            token: the token that clients must show.
            tls: the certificate and its key.
            gpus: the GPUs that /metrics reports.
            public: whether others than this machine's users may connect; see Application.
            requests: the log of requests.

        Raises:
            InputError: the certificate or its key cannot be used.
        """
        self.state, self.socket = ServerState(), listener
        self.application = Application(service, token=token, gpus=gpus, public=public, requests=requests)
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
        """Start to accept connections."""
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        self.listener = await loop.create_server(
            self._connect, sock=self.socket, ssl=tls, backlog=2048, ssl_handshake_timeout=IDLE_S if tls else None
        )
        let_clients_connect(self.socket)
        self.maintenance = asyncio.create_task(self._maintain())

    def _connect(self) -> asyncio.Protocol:
        if len(self.state.connections) >= MAX_CONNECTIONS:
            return BusyConnection()
        return Connection(self.config, self.state, {})

    async def _maintain(self) -> None:
        """Update the header Date each second, and close connections whose client does nothing."""
        waiting: dict[Any, Any] = {}
        seconds = 0
        while True:
            self.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            await asyncio.sleep(1)
            seconds += 1
            if seconds % IDLE_S == 0:
                waiting = close_idle(list(self.state.connections), waiting)

    async def stop(self, grace_s: float) -> None:
        """Accept no more connections, and return when all requests are answered, or after `grace_s` seconds.

        Afterwards no client is connected.
        """
        await self._close_listener(min(grace_s, _HANDSHAKE_S))
        await self._wait_for_disconnects(min(grace_s, _LAST_REQUESTS_S))
        for connection in list(self.state.connections):
            connection.shutdown()
        await self._wait_for_disconnects(grace_s)
        for connection in list(self.state.connections):
            connection.transport.abort()
        self.maintenance.cancel()

    async def _close_listener(self, seconds: float) -> None:
        """Close the listening socket without resetting a connection.

        Closing resets the connections that the kernel has established and nobody has accepted. So new clients are
        ignored first, handshakes get `seconds` to complete, and the connections that wait then are accepted.
        """
        if not self.listener.is_serving():
            return
        drop_new_clients(self.socket)
        await asyncio.sleep(seconds)
        if not self.listener.is_serving():
            return  # a second signal has closed it meanwhile
        with self.socket.dup() as duplicate:
            self.listener.close()
            pending = accept_pending(duplicate)
        serve = partial(asyncio.get_running_loop().connect_accepted_socket, self._connect, ssl=self.config.ssl)
        await asyncio.gather(*map(serve, pending), return_exceptions=True)

    async def _wait_for_disconnects(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self.state.connections and loop.time() < end:
            await asyncio.sleep(_POLL_S)
