"""A service without an engine, for tests of HTTP: the first logit of a row is the length of its text."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import uvloop

from tests.head_of import head_of
from toolchain.heads.contract import Head
from toolchain.serve.aside import aside
from toolchain.serve.checks import Checks
from toolchain.serve.counters import Counters, Times
from toolchain.serve.http.app import Application
from toolchain.serve.http.openapi import ANY_MODEL, Shown
from toolchain.serve.http.request import Request
from toolchain.serve.http.server import HttpServer
from toolchain.serve.limits import Limits
from toolchain.serve.listener import bind
from toolchain.serve.metadata import Description
from toolchain.serve.outputs import tensors
from toolchain.serve.protocol import InferRequest, InferResponse, Reason, RefusedError
from toolchain.serve.service import Ran

NAME = "sentiment"


@dataclass
class FakeService:
    name: str = NAME
    version: str = "1"
    ready: bool = True
    alive: bool = True
    texts_per_row: int = 1
    shown: Shown = ANY_MODEL
    limits: Limits = field(default_factory=Limits)
    seen: list[InferRequest] = field(default_factory=list)
    failure: Exception | None = None
    # No request is answered before the event is set.
    gate: asyncio.Event | None = None
    cancelled: int = 0
    closed: bool = False
    counters: Counters = field(default_factory=Counters)
    head: Head = field(default_factory=lambda: head_of("short", "long"))

    def drain(self) -> None:
        self.ready = False

    def info(self, examples: list[dict[str, str]]) -> dict[str, Any]:
        labels = list(self.shown.response.get("scores", {}))
        artefact = {"file": "model.onnx", "sha256": "a1" * 32}
        made = {"precision": "int8", "backend": "ort", "device": "cpu", "bundle_sha256": "b2" * 32}
        return {"name": self.name, "labels": labels, "artefact": artefact, "examples": examples, **made}

    @property
    def description(self) -> Description:
        inputs = [
            {"name": name, "datatype": "BYTES", "shape": [-1, 1]}
            for name in ("TEXT", "TEXT_PAIR")[: self.texts_per_row]
        ]
        outputs = [{"name": "LABEL", "datatype": "BYTES", "shape": [-1, 1]}]
        model = {"name": self.name, "versions": ["1"], "platform": "toolchain", "inputs": inputs, "outputs": outputs}
        server = {"name": "toolchain", "version": "0", "extensions": ["binary_tensor_data"]}
        return Description(server, model, {"name": self.name, "max_batch_size": self.limits.max_batch})

    def statistics(self) -> dict[str, Any]:
        return {"model_stats": [{"name": self.name, "version": "1"}]}

    async def _wait(self) -> None:
        if self.failure:
            raise self.failure
        try:
            if self.gate:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def infer(self, request: InferRequest) -> InferResponse:
        self.seen.append(request)
        counts = {"input_ids": 100, "attention_mask": 2}
        checks = Checks(self.name, self.texts_per_row, counts, 128, {}, self.limits, self.head.outputs)
        names, rows = checks.outputs(request), checks.rows(request)
        await self._wait()
        sizes = [len(row[0]) for row in rows] if isinstance(rows, list) else [len(rows)]
        logits = np.array([[size, np.nan] for size in sizes], np.float32)
        made = tensors(logits, self.head, names, request.classes)
        return InferResponse(self.name, "1", request.id, made)

    async def classify(self, texts: list[tuple[str, ...]], write: Callable[[list[dict[str, Any]]], Any]) -> Any:
        if any(len(part) > self.limits.max_characters for text in texts for part in text):
            raise RefusedError(Reason.INVALID, "a text is too long")
        await self._wait()
        if self.shown.response["label"] is None:
            return write([{"label": None, "score": sum(map(len, text)) / 3} for text in texts])
        labels = [str(sum(map(len, text))) for text in texts]
        return write([{"label": label, "score": 0.75, "scores": {label: 0.75, "other": 0.25}} for label in labels])

    async def run(self, texts: list[tuple[str, ...]], make: Callable[[Ran], Any]) -> Any:
        sizes = np.array([[sum(map(len, text))] for text in texts], np.float32)
        if sizes.max() > self.limits.max_characters:
            raise RefusedError(Reason.TOO_LARGE, "a text is too long")
        await self._wait()
        logits = sizes.repeat(self.head.width or 1, axis=1)
        return await aside(logits.nbytes, partial(make, Ran(logits, np.zeros(len(texts), bool), len(texts), Times())))

    async def close(self) -> None:
        self.closed = True


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(application: Application, method: str, path: str, body: Any = b"", headers: Any = None) -> Response:
    """Send a request to an application without a server.

    A body of bytes is sent as it is, a tuple of bytes in parts, and anything else as JSON.
    """
    parts = body if isinstance(body, tuple) else (body if isinstance(body, bytes) else json.dumps(body).encode(),)
    given = {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}
    request = Request(method, path, given, limit=application.max_body_bytes, keep_alive=True)
    for part in parts:
        request.add(part)
    if not request.fault:  # a client that is refused sends no more
        request.end()
    found = asyncio.run(application(request))
    shown = {name.decode(): value.decode() for name, value in found.headers}
    shown["connection"] = "keep-alive" if request.keep_alive else "close"
    return Response(found.status, shown, found.body)


@contextmanager
def running(service: FakeService, *, tls: Any = None, **options: Any) -> Iterator[str]:
    """Yield host:port of a real server of the service, which runs in a thread; `options` are the application's."""
    loop = uvloop.new_event_loop()

    async def start() -> HttpServer:
        server = HttpServer(Application(service, **options), listener, tls=tls)
        await server.start()
        return server

    with bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            server = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
            try:
                yield f"127.0.0.1:{listener.getsockname()[1]}"
            finally:
                asyncio.run_coroutine_threadsafe(server.stop(0.2), loop).result(30)
        finally:  # also if the server did not start, because a loop that runs on would keep the tests from ending
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
