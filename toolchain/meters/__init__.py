"""Meters: what a window of work cost. To add one: a module here that meets `Meter`.

A meter opens and closes a window and gives a JSON value. It never guesses: what could not be
measured is null with a reason. It knows nothing of frameworks, as `infer` returns with the device
idle (see toolchain/runtimes).
"""

from typing import Any, Protocol


class Meter(Protocol):
    """Measures one window of work."""

    def start(self) -> None:
        """Open the window."""

    def stop(self) -> Any:
        """Close the window and return its reading as a JSON value, with units in the keys."""
