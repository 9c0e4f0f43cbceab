"""The listening socket of the HTTP server. It binds its port at once, and closes without resetting a client.

While the model loads, and again at shutdown, the kernel drops new connection requests (SYN packets). A client whose SYN
is dropped sends it again after one second, then after two more (RFC 6298). By then the service is ready, or the port is
closed and the client is refused.
"""

import contextlib
import ctypes
import socket
import struct

from toolchain.errors import InputError, UsageError

# Socket options of asm-generic/socket.h, which Python does not name.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27

# A program in classic BPF; each instruction is (code, jt, jf, k) as in linux/filter.h. The program loads byte 13 of the
# TCP header, which has the flags. It drops the packet if SYN is set, and accepts it otherwise.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port but ignores clients until `let_clients_connect`.

    The socket listens at once, because otherwise another process could bind the same port. If the kernel has no BPF
    filters, clients connect at once and wait until the model is loaded.

    Raises:
        InputError: the port is not available.
        UsageError: the host has no address.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: the name is not a valid host name
        raise UsageError(f"--host {host}: no such host. Give a name or an address of this machine.") from error
    bound = socket.socket(family, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        drop_new_clients(bound)
        bound.listen()
    except OSError as error:
        bound.close()
        advice = "Choose another port with --http-port, or 0 for any free one."
        raise InputError(f"{host_in_url(host)}:{port}: {error.strerror}. {advice}") from error
    return bound


def drop_new_clients(listener: socket.socket) -> None:
    """Make the kernel drop new connection requests (SYN packets).

    Connections that are already established can still be accepted. At shutdown, this comes before the socket is closed;
    otherwise the close would reset connections that were established after the last accept.
    """
    instructions = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    buffer = ctypes.create_string_buffer(instructions)
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(buffer))  # struct sock_fprog
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def let_clients_connect(listener: socket.socket) -> None:
    """Let clients connect again: undo `drop_new_clients`."""
    with contextlib.suppress(OSError):  # no filter is attached
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def accept_pending(listener: socket.socket) -> list[socket.socket]:
    """Accept and return the connections that the kernel has established and the server has not accepted yet."""
    accepted = []
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            accepted.append(listener.accept()[0])
    for connection in accepted:
        connection.setblocking(False)
    return accepted


def host_in_url(host: str) -> str:
    """Return a host as it is written in a URL: an IPv6 address is put in brackets."""
    return f"[{host}]" if ":" in host else host
