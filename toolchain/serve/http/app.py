"""The ASGI application: the routes, and how responses and refusals are written.

It uses no framework. There is one model in one version, so every path is a key of one dict, and an inference request
passes through nothing else on its way to the service.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from toolchain.records.serving import ModelState
from toolchain.serve import metrics
from toolchain.serve.auth import check_origin, is_authorized
from toolchain.serve.checks import check_model, check_statistics
from toolchain.serve.gpus import Gpus
from toolchain.serve.http import body as http_body
from toolchain.serve.http import codec, openapi, pages
from toolchain.serve.http.body import ClientGoneError, Receive, UnreadError, UnsupportedEncodingError
from toolchain.serve.http.connection import CONNECTION, Scope
from toolchain.serve.protocol import Reason, RefusedError
from toolchain.serve.request_log import OFF, RequestLog

if TYPE_CHECKING:
    from toolchain.serve.service import Service

log = logging.getLogger("toolchain")

Headers = tuple[tuple[bytes, bytes], ...]

JSON, OCTETS, TEXT = b"application/json", b"application/octet-stream", b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"
PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"

# Health checks, which probes send under any name.
HEALTH = ("/v2/health/live", "/v2/health/ready", "/health")

# Longest message of a refusal, which may name what the client sent.
MESSAGE_CHARACTERS = 1300

# Paths of other models than the served one, and of Triton's model control. Both are refused with Triton's texts.
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]+))?(?:/(ready|config|stats|infer))?")
_CONTROL = re.compile(r"/v2/repository/models/[^/]+/(?:load|unload)")


class Response(NamedTuple):
    """One response."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = ()
    # True if part of the request's body was not read. The connection then closes after the response.
    unread: bool = False


class Request:
    """The parts of an HTTP request that handlers read."""

    __slots__ = ("headers", "path", "receive")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.receive = receive


Handler = Callable[[Request], Awaitable[Response]]

# Path -> method -> handler.
Routes = dict[str, dict[str, Handler]]


def json_response(value: Any, status: int = 200, headers: Headers = ()) -> Response:
    """Return a value as JSON. A number that is not finite becomes null."""
    return Response(orjson.dumps(value), status, JSON, headers)


def refusal(error: RefusedError) -> Response:
    """Return the response to a refused request. A busy service says when to try again (Retry-After)."""
    headers: dict[Reason, Headers] = {
        Reason.UNAVAILABLE: ((b"retry-after", b"1"),),
        Reason.UNAUTHENTICATED: ((b"www-authenticate", b"Bearer"),),
    }
    response = json_response(
        {"error": str(error)[:MESSAGE_CHARACTERS]}, error.reason.http, headers.get(error.reason, ())
    )
    return response._replace(unread=isinstance(error, UnreadError))


class Application:
    """The ASGI application of one service."""

    def __init__(
        self,
        service: "Service",
        *,
        token: str | None = None,
        gpus: Gpus | None = None,
        public: bool = False,
        requests: RequestLog = OFF,
    ) -> None:
        """Make the routes.

        Args:
            service: the service that responds.
            token: the token that clients must show.
            gpus: the GPUs that /metrics reports.
            public: whether others than this machine's users may connect. Without a token, they then see built-in
                sentences and no rows of the model's data.
            requests: the log of requests.
        """
        self.requests = requests
        self.service, self.token, self.gpus, self.public = service, token, gpus, public
        self.shown = service.shown.without_rows() if public and not token else service.shown
        self.max_body_bytes = service.limits.max_body_bytes
        # True while draining: every response then asks the client to close the connection, and a load balancer sends
        # the next one to another server.
        self.closing = False
        self.open_routes, self.routes = self._open_routes(), self._routes()

    def _open_routes(self) -> Routes:
        """Return the routes that need no token: health, and pages, which then say nothing about the model."""
        document = openapi.document(self.service.limits, openapi.ANY_MODEL if self.token else self.shown)
        return {
            **{path: {"GET": self._live if path.endswith("live") else self._ready} for path in HEALTH},
            "/": {"GET": _page(pages.load("page.html"))},
            "/docs": {"GET": _page(pages.docs(document))},
            "/openapi.json": {"GET": _constant(json_response(document))},
        }

    def _routes(self) -> Routes:
        service = self.service
        routes: Routes = {
            "/classify": {"POST": self._classify},
            "/info": {"GET": _json(lambda: service.info(self.shown.bodies))},
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

    async def __call__(self, scope: Scope, receive: Receive, send: Callable[..., Any]) -> None:
        """Respond to one request. An exception of a handler becomes a response."""
        connection = scope.get(CONNECTION)
        if connection:
            connection.task = asyncio.current_task()
        request = Request(scope, receive)
        known = request.path in self.open_routes or request.path in self.routes
        try:
            with self.requests.request(scope["method"], request.path if known else None) as entry:
                response = await self._respond(request, scope["method"])
                if entry.id:
                    response = response._replace(headers=(*response.headers, (b"x-request-id", entry.id.encode())))
                await self._send(request, send, response)
                entry.status = response.status
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            if not (connection and connection.transport.is_closing()):
                raise  # the client is still there, so something else cancelled the task
        finally:
            if connection:
                connection.task = None

    async def _respond(self, request: Request, method: str) -> Response:
        try:
            handler = self._find(request, "GET" if method == "HEAD" else method)
            return handler if isinstance(handler, Response) else await handler(request)
        except RefusedError as error:
            return refusal(error)
        except UnsupportedEncodingError:
            return json_response({"error": "Unsupported compression type"}, 501)
        except ClientGoneError:
            raise
        except Exception:  # a bug of the service: the log shows it, the client does not see it
            log.exception("%s: internal error", method)
            return json_response({"error": "internal error"}, 500)

    def _find(self, request: Request, method: str) -> Handler | Response:
        """Return the handler of a request, or the response where no handler exists.

        Raises:
            RefusedError: the request lacks the token or, where there is none, comes from another web site; or its
                model is unknown.
        """
        if not self.token and request.path not in HEALTH:
            check_origin(request.headers, changes=method != "GET", public=self.public)
        methods = self.open_routes.get(request.path)
        if methods is None:
            if self.token and not is_authorized(request.headers, self.token):
                raise RefusedError(Reason.UNAUTHENTICATED, "this service needs its token: Authorization: Bearer TOKEN")
            methods = self.routes.get(request.path)
        if methods is None:
            return self._unknown_path(request.path)
        if method not in methods:
            allow = ", ".join(["HEAD", *methods] if "GET" in methods else methods)
            return json_response({"error": "Method Not Allowed"}, 405, ((b"allow", allow.encode()),))
        return methods[method]

    def _unknown_path(self, path: str) -> Response:
        if match := _MODEL.fullmatch(path):
            check = check_statistics if match[3] == "stats" else check_model
            check(self.service.name, match[1], match[2] or "")
        if _CONTROL.fullmatch(path):
            raise RefusedError(Reason.UNAVAILABLE, "explicit model load / unload is not allowed")
        return json_response({"error": "Not Found"}, 404)

    async def _send(self, request: Request, send: Callable[..., Any], response: Response) -> None:
        body, encoding = http_body.compress(response.body, request.headers.get(b"accept-encoding", b""))
        headers = [(b"content-type", response.content_type), (b"content-length", b"%d" % len(body)), *response.headers]
        if encoding:
            headers.append((b"content-encoding", encoding))
        if self.closing or response.unread:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if response.unread:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await http_body.discard_rest(request.receive, self.max_body_bytes)
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def _infer(self, version: str, request: Request) -> Response:
        body = await http_body.read_body(request.receive, request.headers, self.max_body_bytes)
        length = request.headers.get(codec.LENGTH_HEADER)
        inference, form = codec.decode(body, model=self.service.name, version=version, json_length=length)
        data, json_length = codec.encode(await self.service.infer(inference), form)
        if json_length is None:
            return Response(data)
        return Response(data, content_type=OCTETS, headers=((codec.LENGTH_HEADER, b"%d" % json_length),))

    async def _classify(self, request: Request) -> Response:
        body = await http_body.read_body(request.receive, request.headers, self.max_body_bytes)
        texts, is_list = codec.decode_classify(body, self.service.texts_per_row)
        found = await self.service.classify(texts)
        return json_response(found if is_list else found[0])

    async def _live(self, _: Request) -> Response:
        if not self.service.alive:
            raise RefusedError(Reason.UNAVAILABLE, "every engine has failed")
        return Response(content_type=TEXT)

    async def _ready(self, _: Request) -> Response:
        if not self.service.ready:
            raise RefusedError(Reason.UNAVAILABLE, "the service is not ready")
        return Response(content_type=TEXT)

    async def _index(self, _: Request) -> Response:
        state = "READY" if self.service.ready else "UNAVAILABLE"
        return json_response([ModelState(name=self.service.name, version=self.service.version, state=state)])

    async def _metrics(self, _: Request) -> Response:
        return Response(await metrics.scrape(self.service, self.gpus), content_type=PROMETHEUS)


def _constant(response: Response) -> Handler:
    async def handler(_: Request) -> Response:
        return response

    return handler


def _json(value: Callable[[], Any]) -> Handler:
    async def handler(_: Request) -> Response:
        return json_response(value())

    return handler


def _page(page: pages.Page) -> Handler:
    return _constant(Response(page.body, content_type=HTML, headers=page.headers))
