"""The HTTP server: it accepts connections on a listening socket from `start` to `stop`."""

import asyncio
import contextlib
import socket
from email.utils import formatdate

from toolchain.serve.http.app import Application
from toolchain.serve.http.connection import FULL, Connection
from toolchain.serve.limits import MAX_CONNECTIONS, SILENT_S
from toolchain.serve.listener import accept_pending, drop_new_clients, let_clients_connect
from toolchain.serve.places import Places
from toolchain.serve.tls import Tls, open_tls

# Seconds for which requests may still arrive on open connections at shutdown. After that, idle connections are closed.
_LAST_REQUESTS_S = 2.0

# Seconds at shutdown in which TCP handshakes that have begun may complete. A handshake takes one more round trip, which
# is shorter.
_HANDSHAKE_S = 0.2

_POLL_S = 0.01

# Most connections that the kernel has established and the server has not accepted yet.
_BACKLOG = 2048


class HttpServer:
    """An HTTP server on a bound socket."""

    def __init__(self, application: Application, listener: socket.socket, *, tls: Tls | None = None) -> None:
        """Create a server on a socket from `listener.bind`. It accepts connections after `start`.

        Raises:
            InputError: the certificate or its key cannot be used.
        """
        self.application, self.socket, self.places = application, listener, Places[Connection](MAX_CONNECTIONS)
        self.tls = open_tls(tls.cert, tls.key) if tls else None
        # The value of the Date header of responses. `_maintain` updates it each second.
        self.date = b""

    async def start(self) -> None:
        """Start accepting connections."""
        self.socket.listen(_BACKLOG)
        self.accepting = asyncio.create_task(self._accept())
        self.date = formatdate(usegmt=True).encode()
        let_clients_connect(self.socket)
        self.maintenance = asyncio.create_task(self._maintain())

    async def _accept(self) -> None:
        """Accept clients until the task is cancelled.

        A client gets a place before its TLS handshake, so a client that never completes the handshake can be
        disconnected as silent.
        """
        while True:
            try:
                client, _ = await asyncio.get_running_loop().sock_accept(self.socket)
            except OSError:  # the client has left, or the process can open no more files
                await asyncio.sleep(_POLL_S)
            else:
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        """Give a client a place (places.py), and start its connection.

        If there is no place, disconnect it; without TLS, first send 503.
        """
        connection = Connection(self)
        with contextlib.suppress(OSError):  # the client has left
            if self.places.enter(connection, client.getpeername()[0]):
                connection.opening = asyncio.create_task(connection.open(client, self.tls))
                return
            if not self.tls:
                client.send(FULL)
        client.close()

    async def _maintain(self) -> None:
        """Each second, update the Date header, and disconnect clients that are silent for too long or have left."""
        while True:
            await asyncio.sleep(1)
            self.date = formatdate(usegmt=True).encode()
            self.places.hang_up_silent(SILENT_S)
            for connection in self.places:
                if connection.has_left():
                    connection.hang_up()

    async def stop(self, grace_s: float) -> None:
        """Accept no more connections, and return when all requests are answered, or after about `grace_s` seconds.

        All clients are then disconnected.
        """
        self.application.closing = True
        await self._close_listener(min(grace_s, _HANDSHAKE_S))
        await self._wait_for_disconnects(min(grace_s, _LAST_REQUESTS_S))
        for connection in self.places:
            connection.shutdown()
        await self._wait_for_disconnects(grace_s)
        for connection in self.places:
            connection.hang_up()
        self.maintenance.cancel()

    async def _close_listener(self, seconds: float) -> None:
        """Close the listening socket without resetting a connection.

        The close resets connections that the kernel has established and the server has not accepted. Therefore the
        kernel first drops new connection requests, TCP handshakes in progress get `seconds` to complete, and the
        connections that wait are accepted.
        """
        if self.accepting.done():
            return
        drop_new_clients(self.socket)
        await asyncio.sleep(seconds)
        self.accepting.cancel()
        await asyncio.wait([self.accepting])
        for client in accept_pending(self.socket):
            self._connect(client)
        self.socket.close()

    async def _wait_for_disconnects(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while len(self.places) and loop.time() < end:
            await asyncio.sleep(_POLL_S)
