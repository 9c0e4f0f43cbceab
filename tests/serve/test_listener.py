"""A port that is had from the beginning, and clients that are let in and no longer let in."""

import socket

import pytest

from toolchain.errors import InputError, UsageError
from toolchain.serve.listener import bind, ignore_clients, let_clients_in, waiting


@pytest.fixture
def listener():
    with bind("127.0.0.1", 0) as found:
        yield found


def ask(listener):
    """Connect, unless nobody answers."""
    return socket.create_connection(listener.getsockname(), timeout=0.5)


def test_a_port_is_had_from_the_beginning(listener):
    port = listener.getsockname()[1]
    with pytest.raises(InputError, match=f"127.0.0.1:{port}: Address already in use. Choose another"):
        bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70])
def test_a_host_that_is_none(host):
    with pytest.raises(UsageError, match=f"--host {host}: no such host"):
        bind(host, 0)


def test_clients_are_ignored_until_they_are_let_in_and_again_at_the_end(listener):
    with pytest.raises(TimeoutError):
        ask(listener)
    let_clients_in(listener)
    with ask(listener) as client:
        ignore_clients(listener)
        with pytest.raises(TimeoutError):
            ask(listener)
        client.sendall(b"asked before")
        (taken,) = waiting(listener)
        listener.close()  # resets nobody
        with taken:
            taken.setblocking(True)
            assert taken.recv(100) == b"asked before"


def test_letting_in_who_was_not_kept_out_changes_nothing(listener):
    let_clients_in(listener)
    let_clients_in(listener)
    with ask(listener) as client:
        (taken,) = waiting(listener)
        with taken:
            assert taken.getpeername() == client.getsockname()
