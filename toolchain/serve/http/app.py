"""The service over HTTP: a table of routes, and how every answer and every refusal is written.

A bare ASGI application. There is one model in one version, so every address that exists is a key of one dict, and a
request for inference meets nothing else on its way.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from toolchain.serve import guard, metrics
from toolchain.serve.checks import check_model, check_statistics
from toolchain.serve.gpus import Gpus
from toolchain.serve.http import classify, codec, openapi, pages
from toolchain.serve.http.binary import HEADER
from toolchain.serve.http.connection import CONNECTION
from toolchain.serve.protocol import Reason, RefusedError

if TYPE_CHECKING:
    from toolchain.serve.service import Service

log = logging.getLogger("toolchain")

Headers = tuple[tuple[bytes, bytes], ...]

JSON, OCTETS, TEXT = b"application/json", b"application/octet-stream", b"text/plain; charset=utf-8"
PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
_CLOSE = (b"connection", b"close")
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]+))?(?:/(ready|config|stats|infer))?")
_CONTROL = re.compile(r"/v2/repository/models/[^/]+/(?:load|unload)")


class Answer(NamedTuple):
    """What is sent back."""

    body: bytes = b""
    status: int = 200
    kind: bytes = JSON
    headers: Headers = ()
    unread: bool = False
    """The request's body has not been read to its end, and nobody will: the connection closes."""


class Request:
    """What a handler may read of a request."""

    __slots__ = ("headers", "path", "receive")

    def __init__(self, scope: dict[str, Any], receive: guard.Receive) -> None:
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.receive = receive


Handler = Callable[[Request], Awaitable[Answer]]


def json_answer(value: Any, status: int = 200, headers: Headers = ()) -> Answer:
    """Return a value as JSON; numbers that are not finite become null."""
    return Answer(orjson.dumps(value), status, JSON, headers)


def refusal(error: RefusedError) -> Answer:
    """Return a refusal; where the service is too busy, it says when to ask again."""
    headers: dict[Reason, Headers] = {
        Reason.UNAVAILABLE: ((b"retry-after", b"1"),),
        Reason.UNAUTHENTICATED: ((b"www-authenticate", b"Bearer"),),
    }
    answer = json_answer({"error": str(error)}, error.reason.http, headers.get(error.reason, ()))
    return answer._replace(unread=isinstance(error, guard.UnreadError))


class Application:
    """The ASGI application of one service."""

    def __init__(
        self,
        service: "Service",
        *,
        token: str | None = None,
        gpus: Gpus | None = None,
    ) -> None:
        """Make it; /metrics tells of `gpus`."""
        self.service, self.token, self.gpus = service, token, gpus
        self.most_body_bytes = service.limits.max_body_bytes
        self.closing = False
        """Set while draining: clients are asked to connect anew, which leads them elsewhere."""
        self.open, self.routes = self._open(), self._routes()

    def _open(self) -> dict[str, dict[str, Handler]]:
        """Return what needs no token: health, and pages that say nothing of the model."""
        document = openapi.document(self.service.limits)
        return {
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
            "/": {"GET": _page(pages.load("page.html"))},
            "/docs": {"GET": _page(pages.docs(document))},
            "/openapi.json": {"GET": _constant(json_answer(document))},
        }

    def _routes(self) -> dict[str, dict[str, Handler]]:
        service = self.service
        routes: dict[str, dict[str, Handler]] = {
            "/classify": {"POST": self._classify},
            "/metrics": {"GET": self._metrics},
            "/v2": {"GET": _json(service.server_metadata)},
            "/v2/models/stats": {"GET": _json(service.statistics)},
            "/v2/repository/index": {"POST": self._index},
        }
        for version in ("", service.version):
            model = f"/v2/models/{service.name}" + (f"/versions/{version}" if version else "")
            routes |= {
                model: {"GET": _json(service.model_metadata)},
                f"{model}/ready": {"GET": self._ready},
                f"{model}/config": {"GET": _json(service.model_config)},
                f"{model}/stats": {"GET": _json(service.statistics)},
                f"{model}/infer": {"POST": partial(self._infer, version)},
            }
        return routes

    async def __call__(self, scope: dict[str, Any], receive: guard.Receive, send: Callable[..., Any]) -> None:
        """Answer one request, whatever happens."""
        connection = scope.get(CONNECTION)
        if connection:
            connection.task = asyncio.current_task()
        request = Request(scope, receive)
        try:
            answer = await self._answer(request, scope["method"])
            await self._send(request, send, answer)
        except guard.ClientGoneError:
            return
        except asyncio.CancelledError:
            if not (connection and connection.transport.is_closing()):
                raise  # not because the client has left
        finally:
            if connection:
                connection.task = None

    async def _answer(self, request: Request, method: str) -> Answer:
        try:
            handler = self._find(request, "GET" if method == "HEAD" else method)
            return handler if isinstance(handler, Answer) else await handler(request)
        except RefusedError as error:
            return refusal(error)
        except guard.UnsupportedEncodingError:
            return json_answer({"error": "Unsupported compression type"}, 501)
        except guard.ClientGoneError:
            raise
        except Exception:  # a bug of ours is told to the log alone
            log.exception("%s %r: internal error", method, request.path)
            return json_answer({"error": "internal error"}, 500)

    def _find(self, request: Request, method: str) -> Handler | Answer:
        """Return what answers a request.

        Raises:
            RefusedError: it lacks the token, there are too many clients, or its model is unknown.
        """
        methods = self.open.get(request.path)
        if methods is None:
            if self.token and not guard.allowed(request.headers, self.token):
                raise RefusedError(Reason.UNAUTHENTICATED, "this service needs its token: Authorization: Bearer TOKEN")
            methods = self.routes.get(request.path)
        if methods is None:
            return self._unknown(request.path)
        if method not in methods:
            allow = ", ".join(["HEAD", *methods] if "GET" in methods else methods)
            return json_answer({"error": "Method Not Allowed"}, 405, ((b"allow", allow.encode()),))
        return methods[method]

    def _unknown(self, path: str) -> Answer:
        if named := _MODEL.fullmatch(path):
            check = check_statistics if named[3] == "stats" else check_model
            check(self.service.name, named[1], named[2] or "")
        if _CONTROL.fullmatch(path):
            raise RefusedError(Reason.UNAVAILABLE, "explicit model load / unload is not allowed")
        return json_answer({"error": "Not Found"}, 404)

    async def _send(self, request: Request, send: Callable[..., Any], answer: Answer) -> None:
        body, encoding = guard.pack(answer.body, request.headers.get(b"accept-encoding", b""))
        headers = [(b"content-type", answer.kind), (b"content-length", b"%d" % len(body)), *answer.headers]
        if encoding:
            headers.append((b"content-encoding", encoding))
        if self.closing or answer.unread:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if answer.unread:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await guard.linger(request.receive, self.most_body_bytes)
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def _infer(self, version: str, request: Request) -> Answer:
        body = await guard.read_body(request.receive, request.headers, self.most_body_bytes)
        length = request.headers.get(HEADER)
        question, form = codec.decode(body, model=self.service.name, version=version, json_length=length)
        data, json_length = codec.encode(await self.service.infer(question), form)
        if json_length is None:
            return Answer(data)
        return Answer(data, kind=OCTETS, headers=((HEADER, b"%d" % json_length),))

    async def _classify(self, request: Request) -> Answer:
        body = await guard.read_body(request.receive, request.headers, self.most_body_bytes)
        texts, several = classify.decode(body, self.service.texts)
        found = await self.service.classify(texts)
        return json_answer(found if several else found[0])

    async def _live(self, _: Request) -> Answer:
        if not self.service.alive:
            raise RefusedError(Reason.UNAVAILABLE, "no engine runs any more")
        return Answer(kind=TEXT)

    async def _ready(self, _: Request) -> Answer:
        if not self.service.ready:
            raise RefusedError(Reason.UNAVAILABLE, "the service is not ready")
        return Answer(kind=TEXT)

    async def _index(self, _: Request) -> Answer:
        state = "READY" if self.service.ready else "UNAVAILABLE"
        return json_answer([{"name": self.service.name, "version": self.service.version, "state": state}])

    async def _metrics(self, _: Request) -> Answer:
        return Answer(await metrics.scrape(self.service, self.gpus), kind=PROMETHEUS)


def _constant(answer: Answer) -> Handler:
    async def handler(_: Request) -> Answer:
        return answer

    return handler


def _json(value: Callable[[], dict[str, Any]]) -> Handler:
    async def handler(_: Request) -> Answer:
        return json_answer(value())

    return handler


def _page(page: pages.Page) -> Handler:
    return _constant(Answer(page.body, kind=b"text/html; charset=utf-8", headers=page.headers))
