"""Work on large data beside the event loop, so that other requests go on."""

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
    """Return what `work` on data of `size` bytes returns. It runs in a thread if they are many."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work) if size > LARGE_BODY_BYTES else work()
