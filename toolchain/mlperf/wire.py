"""What goes through the pipes between LoadGen and what answers it: numbers of 64 bits, each list after its length."""

import os
import sys
from array import array
from collections.abc import Iterator

WORD = 8
CHUNK = 1 << 16
"""Bytes a read: what a pipe holds on Linux, so that one read takes all that has arrived."""


def send(descriptor: int, numbers: "array[int]") -> None:
    """Write a list, array of Q, to a pipe; return when the pipe has taken all of it."""
    rest = memoryview(array("Q", [len(numbers)]).tobytes() + numbers.tobytes())
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class Inbox:
    """The end of a pipe that lists arrive at."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._bytes = bytearray()

    def take(self) -> "array[int]":
        """Wait until a list is whole; return it with all others that have arrived, as one.

        It is empty when the other side has closed the pipe.
        """
        found = array("Q")
        while not found:
            arrived = os.read(self._descriptor, CHUNK)
            if not arrived:
                break
            self._bytes += arrived
            for whole in self._whole():
                found.extend(whole)
        return found

    def _whole(self) -> "Iterator[array[int]]":
        """Yield the lists that are complete, and forget them."""
        while len(self._bytes) >= WORD:
            end = WORD * (1 + int.from_bytes(self._bytes[:WORD], sys.byteorder))
            if len(self._bytes) < end:
                return
            yield array("Q", bytes(self._bytes[WORD:end]))
            del self._bytes[:end]
