"""Work on large data, beside the event loop."""

import asyncio
import threading
import time

from toolchain.serve.aside import aside
from toolchain.serve.limits import LARGE_BODY_BYTES


def test_one_thread_alone_competes_with_the_event_loop():
    def work():
        time.sleep(0.01)  # so that each of several threads would get some
        return threading.get_ident()

    async def scenario(size):
        return set(await asyncio.gather(*(aside(size, work) for _ in range(8))))

    assert asyncio.run(scenario(LARGE_BODY_BYTES)) == {threading.get_ident()}
    (thread,) = asyncio.run(scenario(LARGE_BODY_BYTES + 1))
    assert thread != threading.get_ident()
