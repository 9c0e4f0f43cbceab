"""Places for clients: they limit the number of HTTP connections and of gRPC calls.

Each connection or call needs a place. When all places are taken, the client that has been silent longest is
disconnected, and a new client gets its place. Some spare places are kept for health checks and metrics.
"""

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from toolchain.serve.limits import SPARE_PLACES


class Client(Protocol):
    """A client that has a place: an HTTP connection or a gRPC call."""

    def hang_up(self) -> None:
        """End the connection or call, because it was silent for too long or another client needs its place."""


C = TypeVar("C", bound=Client)


class Places(Generic[C]):
    """The clients that have a place, and the time since which each silent client has been silent.

    A client is silent while it must act next, that is, send a request or read a response. It stays silent even if it
    sends a byte now and then. A client whose request is being answered never loses its place.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Create `limit` places. Clients of one address can take at most three quarters of them."""
        self._limit, self._limit_of_address, self._clock = limit, max(1, limit * 3 // 4), clock
        self._addresses: dict[C, str] = {}
        self._counts: Counter[str] = Counter()
        # Silent client -> the time at which it became silent. The client that has been silent longest comes first.
        self._silent: dict[C, float] = {}
        self._spare: set[C] = set()

    def __iter__(self) -> Iterator[C]:
        return iter(list(self._addresses))

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def working(self) -> int:
        """Number of clients whose request is being answered."""
        return len(self._addresses) - len(self._silent)

    def enter(self, client: C, host: str) -> bool:
        """Give a client a place. Return False if no place is free and no client is silent.

        `host` is the address of the client. The client is silent at first.
        """
        address = network(host)
        if self._is_full(address):
            self._hang_up_first(address if self._counts[address] >= self._limit_of_address else None)
        # No client was silent, or the freed place went to a client in a spare place.
        if self._is_full(address):
            if len(self._spare) >= SPARE_PLACES:
                return False
            self._spare.add(client)
        self._addresses[client] = address
        self._counts[address] += 1
        self.wait(client)
        return True

    def _is_full(self, address: str) -> bool:
        regular = len(self._addresses) - len(self._spare)
        return regular >= self._limit or self._counts[address] >= self._limit_of_address

    def leave(self, client: C) -> None:
        """Free the place of a client, if it has one."""
        address = self._addresses.pop(client, None)
        if address is None:
            return
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]
        self._silent.pop(client, None)
        if client in self._spare:
            self._spare.remove(client)
        elif self._spare:
            self._spare.pop()

    def is_spare(self, client: C) -> bool:
        """Return whether a client has one of the places that are kept for health checks and metrics."""
        return client in self._spare

    def wait(self, client: C) -> None:
        """Mark a client as silent from now on, because it must act next."""
        self._silent.pop(client, None)
        if client in self._addresses:
            self._silent[client] = self._clock()

    def work(self, client: C) -> None:
        """Note that the service is answering this client's request: until `wait`, the client is not silent."""
        self._silent.pop(client, None)

    def hang_up_silent(self, seconds: float) -> None:
        """Disconnect all clients that have been silent for `seconds` or longer."""
        before = self._clock() - seconds
        for client, since in list(self._silent.items()):
            if since > before:
                break
            self._end(client)

    def make_room(self, spared: C, most: int, size: Callable[[C], int]) -> None:
        """Disconnect the clients that have been silent longest, until the sum of `size(client)` is at most `most`.

        The sum is over all clients. `spared` and clients of size 0 stay connected.
        """
        excess = sum(map(size, self._addresses)) - most
        for client in list(self._silent):
            taken = size(client)
            if taken and excess > 0 and client is not spared:
                excess -= taken
                self._end(client)

    def _hang_up_first(self, address: str | None) -> None:
        """Disconnect the client that has been silent longest, if any client is silent.

        With an `address`, only its clients count.
        """
        found = (client for client in self._silent if address in (None, self._addresses[client]))
        if (client := next(found, None)) is not None:
            self._end(client)

    def _end(self, client: C) -> None:
        self.leave(client)
        client.hang_up()


def network(host: str) -> str:
    """Return the address under which a client is counted: its IPv4 address, or the /64 network of its IPv6 address."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))
