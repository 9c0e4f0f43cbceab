"""Meters of latency, memory and energy. To add one, write a module here with a class that implements `Meter`.

A meter measures one window of work and returns a JSON value. In it, a value that could not be measured is null, with a
reason beside it. Meters do not depend on frameworks: the function `infer` that they time returns only when the device
has finished (see toolchain/runtimes).
"""

from typing import Protocol


class Meter(Protocol):
    """The interface of a meter, which measures one window of work, from `start` to `stop`."""

    def start(self) -> None:
        """Begin the window."""

    def stop(self) -> object:
        """End the window and return what was measured as a JSON value, with units in the keys."""
