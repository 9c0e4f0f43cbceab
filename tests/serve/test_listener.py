"""A port that is taken at once, and clients that can connect only between start and shutdown."""

import socket

import pytest

from toolchain.errors import InputError, UsageError
from toolchain.serve.listener import accept_pending, bind, drop_new_clients, let_clients_connect


@pytest.fixture
def listener():
    with bind("127.0.0.1", 0) as found:
        yield found


def connect(listener):
    """Connect, or raise TimeoutError after half a second."""
    return socket.create_connection(listener.getsockname(), timeout=0.5)


def test_a_bound_port_cannot_be_bound_again(listener):
    port = listener.getsockname()[1]
    with pytest.raises(InputError, match=f"127.0.0.1:{port}: Address already in use. Choose another"):
        bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70])
def test_an_unknown_host_is_refused(host):
    with pytest.raises(UsageError, match=f"--host {host}: no such host"):
        bind(host, 0)


def test_clients_are_ignored_before_start_and_at_shutdown(listener):
    with pytest.raises(TimeoutError):
        connect(listener)
    let_clients_connect(listener)
    with connect(listener) as client:
        drop_new_clients(listener)
        with pytest.raises(TimeoutError):
            connect(listener)
        client.sendall(b"sent before")
        (taken,) = accept_pending(listener)
        listener.close()  # resets no connection
        with taken:
            taken.setblocking(True)
            assert taken.recv(100) == b"sent before"


def test_letting_clients_connect_twice_changes_nothing(listener):
    let_clients_connect(listener)
    let_clients_connect(listener)
    with connect(listener) as client:
        (taken,) = accept_pending(listener)
        with taken:
            assert taken.getpeername() == client.getsockname()
