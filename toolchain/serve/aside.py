"""Work on large data beside the event loop, so that other requests go on."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from toolchain.serve.limits import LARGE_BODY_BYTES

T = TypeVar("T")


async def aside(size: int, work: Callable[[], T]) -> T:
    """Return what `work` on data of `size` bytes returns. It runs in a thread if they are many."""
    return await asyncio.to_thread(work) if size > LARGE_BODY_BYTES else work()
