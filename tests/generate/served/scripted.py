"""A server with OpenAI's interface whose every byte has a moment, on event loops whose time is not the machine's."""

import asyncio
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.loop import Loop


class SharedLoop(Loop):
    """An event loop on the time of a scripted NVML, which the meter's thread moves on while it measures."""

    def __init__(self, nvml: Any) -> None:
        self.nvml, self.changed = nvml, threading.Condition()
        self.due_s: float | None = None  # the next timer, while the loop waits for it
        self.measured = False
        super().__init__()

    def time(self) -> float:
        return float(self.nvml.now())

    def measuring(self, trial: Callable[..., Any]) -> Callable[..., Any]:
        """Return the meter's work, during which the loop leaves the time to the meter."""

        def work(*arguments: Any) -> Any:
            self.measured = True
            try:
                return trial(*arguments)
            finally:
                with self.changed:
                    self.measured = False
                    self.changed.notify_all()

        return work

    def pass_s(self, seconds: float) -> None:
        with self.changed:
            self.due_s = due_s = self.time() + seconds
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.due_s is None or not self.measured, timeout=60)
            self.due_s = None
            if self.time() < due_s:
                self.nvml.advance(due_s - self.time() + 1e-6)

    def sleep(self, seconds: float) -> None:
        """The meter's sleep: wait at each timer on the way until the loop has run it."""
        end_s = self.time() + seconds
        while self.measured and self.time() < end_s - 1e-6:
            with self.changed:
                assert self.changed.wait_for(lambda: self.due_s is not None, timeout=60)
                self.nvml.advance(max(1e-6, min(end_s, self.due_s) - self.time()))
                if self.time() >= self.due_s - 1e-6:
                    self.due_s = None
                    self.changed.notify_all()
        if self.time() < end_s - 1e-6:
            self.nvml.advance(end_s - self.time())


@dataclass
class Server:
    """Sends a role, `words` after `first_s` and then every `step_s`, and its usage. `fault` changes one of them.

    `sent` has the counts of each whole reply; `seen` the requests, `connections` those that they came by.
    """

    words: list[str] = field(default_factory=lambda: ["a", "é", "€", "😀"])
    first_s: float = 0.5
    step_s: float = 0.1
    fault: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    sent: list[tuple[int, int]] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    end_s: float = 0.0  # from the last event to the end of the reply
    connections: set[Any] = field(default_factory=set)
    pieces: int = 1  # an event is written in so many pieces, each in a packet of its own

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.connections.add(request.transport)
        self.seen.append((request.path, request.headers.get("Authorization"), body))
        if self.fault.isdecimal():
            return web.json_response({"error": {"message": "key sk-secret is wrong"}}, status=int(self.fault))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        words = self.words[: body["max_tokens"]]
        await self.write(response, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for number, word in enumerate(words):
            await asyncio.sleep(self.step_s if number else self.first_s)
            if number == 1 and await self.broken(response, request):
                return response
            text = {"text": word} if "prompt" in body else {"delta": {"content": word}}
            await self.write(response, {"choices": [text]})
        await self.write(response, {"choices": [{"delta": {}, "finish_reason": "length"}]})
        if self.fault != "no usage":
            prompt = len((body.get("prompt") or body["messages"][0]["content"]).split())
            self.sent.append((prompt, len(words)))
            counts = {"prompt_tokens": prompt, "completion_tokens": len(words)} | self.usage
            await self.write(response, {"choices": [], "usage": counts})
        await response.write(b"data: [DONE]\n\n")
        if self.end_s:
            await asyncio.sleep(self.end_s)
        return response

    async def broken(self, response: web.StreamResponse, request: web.Request) -> bool:
        match self.fault:
            case "dies":
                request.transport.abort()
            case "stalls":
                await asyncio.sleep(1000)
            case "half":
                await response.write('data: {"choices": [{"delta": {"content": "€'.encode()[:-1])
            case "not json":
                await response.write(b"data: {choices\n\n")
            case "error":
                await response.write(b'data: {"error": "out of memory"}\n\n')
            case "ends":
                pass
            case _:
                return False
        return True

    async def write(self, response: web.StreamResponse, event: Any) -> None:
        data = f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        cuts = [len(data) * number // self.pieces for number in range(self.pieces + 1)]
        for start, end in itertools.pairwise(cuts):
            await response.write(data[start:end])
            if self.pieces > 1:
                await asyncio.sleep(0)

    async def start(self) -> str:
        """Start on a free port, and return the URL."""
        application = web.Application()
        application.router.add_post("/{path:.*}", self.answer)
        self.runner = web.AppRunner(application, keepalive_timeout=1e6, shutdown_timeout=0)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"
