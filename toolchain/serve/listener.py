"""A listening socket whose port is taken at once, and which closes without resetting a client that it let in."""

import contextlib
import ctypes
import socket
import struct
import sys

from toolchain.errors import InputError, UsageError

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
"""asm-generic/socket.h; Python has no names for them."""
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""Classic BPF of linux/filter.h (code, jt, jf, k): load byte 13 of the TCP header, its flags; drop if SYN is set."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that has the port, so that nobody else gets it, and ignores clients until they are let in.

    It listens: two sockets that do not may have one port. Who asks while the model is loaded is not answered and asks
    again (RFC 6298: after a second, then two); where the system has no such filter, he waits.

    Raises:
        InputError: the port cannot be had.
        UsageError: the host has no address.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:  # no address, or no name that one could have
        raise UsageError(f"--host {host}: no such host. Give a name or an address of this machine.") from error
    bound = socket.socket(family, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        ignore_clients(bound)
        bound.listen()
    except OSError as error:
        bound.close()
        what = f"{error.strerror}. Choose another port with --http-port, or 0 for any free one."
        raise InputError(f"{shown(host)}:{port}: {what}") from error
    return bound


def ignore_clients(listener: socket.socket) -> None:
    """Drop the packets that ask for a connection; who has been let in can still be accepted.

    Closing resets whom the system let in between the last accept and the close. So the close comes last: the client
    asks again a second later, and is refused by then.
    """
    if not sys.platform.startswith("linux"):
        return
    steps = b"".join(struct.pack("HBBI", *step) for step in _NO_SYN)
    held = ctypes.create_string_buffer(steps)
    program = struct.pack("HP", len(_NO_SYN), ctypes.addressof(held))  # struct sock_fprog
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def let_clients_in(listener: socket.socket) -> None:
    """Undo `ignore_clients`."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):  # there was none
            listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def waiting(listener: socket.socket) -> list[socket.socket]:
    """Return the connections that the system has let in and nobody has accepted."""
    taken = []
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            taken.append(listener.accept()[0])
    for one in taken:
        one.setblocking(False)
    return taken


def shown(host: str) -> str:
    """Return a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host
