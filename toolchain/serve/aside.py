"""Runs work on large data in a thread, so that the event loop can serve other requests meanwhile."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from toolchain.serve.limits import LARGE_BODY_BYTES

T = TypeVar("T")

# Only one thread, because only one thread at a time can hold Python's global lock. With several busy threads, the event
# loop, and with it each health check, would have to wait for all of them in turn.
_THREAD = ThreadPoolExecutor(1, "aside")


async def aside(size: int, work: Callable[[], T]) -> T:
    """Return the result of `work`, which processes `size` bytes.

    `work` runs in a thread if `size` exceeds LARGE_BODY_BYTES, else directly on the event loop.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work) if size > LARGE_BODY_BYTES else work()
