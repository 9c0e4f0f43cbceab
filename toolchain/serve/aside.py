"""Runs work on large data in a thread, so that the event loop can serve other requests meanwhile."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from toolchain.serve.limits import LARGE_BODY_BYTES

T = TypeVar("T")

# One thread, because Python's global lock lets one run at a time: the event loop would wait for each of several in
# turn, and health checks with it.
_THREAD = ThreadPoolExecutor(1, "aside")


async def aside(size: int, work: Callable[[], T]) -> T:
    """Return the result of `work`, which processes `size` bytes.

    `work` runs in a thread if `size` exceeds LARGE_BODY_BYTES, else directly on the event loop.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work) if size > LARGE_BODY_BYTES else work()
