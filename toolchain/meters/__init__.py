"""Meters of latency, memory and energy. To add one: a module here with a class that meets `Meter`.

A meter opens and closes a window and returns a JSON value, in which a value that was not measured is null with a
reason. Meters know nothing of frameworks: `infer` returns only when the device is idle (see toolchain/runtimes).
"""

from typing import Protocol


class Meter(Protocol):
    """Measures one window of work."""

    def start(self) -> None:
        """Open the window."""

    def stop(self) -> object:
        """Close the window and return its reading as a JSON value, with units in the keys."""
