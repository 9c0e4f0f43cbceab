"""Keeps a number of requests in flight (streams): once for a list of prompts, or endlessly while energy is measured."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator

from toolchain.generate.served.stream import Reply

# Sends a prompt and returns the reply; calls its second argument whenever a part with text arrives.
Ask = Callable[[str, Callable[[], None]], Awaitable[Reply]]


async def replies(ask: Ask, prompts: Iterable[str], streams: int) -> list[Reply]:
    """Send prompts in their order, with at most `streams` in flight; return the replies in the same order.

    Raises:
        ToolchainError: the first error of a stream. The other streams are cancelled.
    """
    found: dict[int, Reply] = {}
    waiting = enumerate(prompts)

    async def stream() -> None:
        for number, prompt in waiting:
            found[number] = await ask(prompt, lambda: None)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(stream())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [found[number] for number in sorted(found)]


class Endless:
    """Streams that send prompts again and again, without a pause, until they are drained."""

    def __init__(self, ask: Ask, prompts: list[str], streams: int) -> None:
        """Start the streams, in a running event loop."""
        self.done: list[Reply] = []
        self._prompts: Iterator[str] = itertools.cycle(prompts)
        self._arrived: asyncio.Queue[Exception | None] = asyncio.Queue()
        self._draining = False
        self._tasks = [asyncio.create_task(self._stream(ask)) for _ in range(streams)]

    async def _stream(self, ask: Ask) -> None:
        try:
            while not self._draining:
                self.done.append(await ask(next(self._prompts), self._count))
        except Exception as error:  # otherwise `more` would wait for ever
            self._arrived.put_nowait(error)

    def _count(self) -> None:
        self._arrived.put_nowait(None)

    async def more(self, parts: int = 1) -> None:
        """Wait until `parts` more parts of text have arrived, in addition to those that earlier calls waited for.

        Raises:
            ToolchainError: the error of a stream.
        """
        for _ in range(parts):
            error = await self._arrived.get()
            if error is not None:
                raise error

    async def settle(self, count: int) -> None:
        """Wait until `count` replies are complete. By then the streams no longer start at the same time."""
        while len(self.done) < count:
            await self.more()

    async def drain(self) -> None:
        """Send no more prompts, and wait for the replies in flight.

        Raises:
            ToolchainError: the error of a stream.
        """
        self._draining = True
        await asyncio.gather(*self._tasks)
        while not self._arrived.empty():
            await self.more()

    async def cancel(self) -> None:
        """Cancel the replies in flight."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
