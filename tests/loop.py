"""An event loop whose time is not the machine's."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class Selector(selectors.DefaultSelector):
    """Lets the time pass at once when no socket is ready."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        super().__init__()
        self.sleep = sleep

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if found or timeout == 0:
            return found
        assert timeout is not None, "nothing will ever happen"
        self.sleep(timeout)
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while something runs."""

    def __init__(self) -> None:
        self.now_s = 100.0
        super().__init__(Selector(self.pass_s))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
