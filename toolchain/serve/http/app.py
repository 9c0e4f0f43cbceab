"""The HTTP application: it finds the handler of each path, and forms responses and refusals.

It uses neither a web framework nor ASGI. There is one model in one version, so one dict has every path, and an
inference request passes through no other layer on its way to the service.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from toolchain.records.serving import ModelState
from toolchain.serve import metrics
from toolchain.serve.aside import aside
from toolchain.serve.auth import check_origin, is_authorized
from toolchain.serve.checks import check_model, check_statistics
from toolchain.serve.gpus import Gpus
from toolchain.serve.http import clients, codec, openapi, pages
from toolchain.serve.http.body import compress, read_body
from toolchain.serve.http.codec import by_row
from toolchain.serve.http.connection import HEALTH
from toolchain.serve.http.request import Headers, Request, Response
from toolchain.serve.limits import LARGE_BODY_BYTES
from toolchain.serve.protocol import Reason, RefusedError
from toolchain.serve.request_log import OFF, RequestLog

if TYPE_CHECKING:
    from toolchain.data.rows import Text
    from toolchain.serve.service import Service

log = logging.getLogger("toolchain")

OCTETS, TEXT = b"application/octet-stream", b"text/plain; charset=utf-8"
PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"

# Longest message of a refusal, in characters. A message may repeat a long name that the client sent.
MESSAGE_CHARACTERS = 1300

# Paths of models and versions that may not be served, and of Triton's model control (load and unload). Requests to them
# are refused with Triton's messages.
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]+))?(?:/(ready|config|stats|infer))?")
_CONTROL = re.compile(r"/v2/repository/models/[^/]+/(?:load|unload)")


T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

# Path -> method -> handler.
Routes = dict[str, dict[str, Handler]]


def json_response(value: Any, status: int = 200, headers: Headers = ()) -> Response:
    """Return a response with `value` as JSON. A number that is not finite becomes null."""
    return Response(orjson.dumps(value), status, headers=headers)


def error_response(path: str, status: int, message: str, headers: Headers = ()) -> Response:
    """Return an error response with `message`, in the JSON form that clients of this path expect."""
    form = clients.ERRORS.get(path)
    return json_response(form(status, message) if form else {"error": message}, status, headers)


def refusal(error: RefusedError, path: str) -> Response:
    """Return the response to a refused request.

    If the service is not available, the response says after how many seconds to try again (Retry-After).
    """
    headers: dict[Reason, Headers] = {
        Reason.UNAVAILABLE: ((b"retry-after", b"1"),),
        Reason.UNAUTHENTICATED: ((b"www-authenticate", b"Bearer"),),
    }
    message = str(error)[:MESSAGE_CHARACTERS]
    return error_response(path, error.reason.http, message, headers.get(error.reason, ()))


class Application:
    """The HTTP application of one service: called with a request, it returns the response."""

    def __init__(
        self,
        service: "Service",
        *,
        token: str | None = None,
        gpus: Gpus | None = None,
        public: bool = False,
        requests: RequestLog = OFF,
    ) -> None:
        """Create the routes.

        Args:
            service: the service that runs the requests.
            token: the token that clients must send; None if they need none.
            gpus: the GPUs that /metrics reports.
            public: whether other machines can connect. If they can and need no token, the pages show built-in sentences
                and not rows of the model's data.
            requests: the log of requests.
        """
        self.requests = requests
        self.service, self.token, self.gpus, self.public = service, token, gpus, public
        self.shown = service.shown.without_rows() if public and not token else service.shown
        self.max_body_bytes = service.limits.max_body_bytes
        # True while the service drains. Each connection then closes after its next response, so that the client opens a
        # new one, which a load balancer sends to another server.
        self.closing = False
        self.open_routes, self.routes = self._open_routes(), self._routes()

    def _open_routes(self) -> Routes:
        """Return the routes that need no token: the health checks and the web pages.

        If other routes need a token, these pages show nothing about the model.
        """
        document = openapi.document(self.service.limits, openapi.ANY_MODEL if self.token else self.shown)
        return {
            **{path: {"GET": self._live if path.endswith("live") else self._ready} for path in HEALTH},
            "/": {"GET": _constant(pages.load("page.html"))},
            "/docs": {"GET": _constant(pages.docs(document))},
            "/openapi.json": {"GET": _constant(json_response(document))},
        }

    def _routes(self) -> Routes:
        service = self.service
        routes: Routes = {
            "/classify": {"POST": self._classify},
            "/info": {"GET": _constant(json_response(service.info(self.shown.bodies)))},
            "/metrics": {"GET": self._metrics},
            "/v2": {"GET": _constant(json_response(service.description.server))},
            "/v2/models/stats": {"GET": self._statistics},
            "/v2/repository/index": {"POST": self._index},
        }
        of_heads = {"/v1/embeddings": self._embeddings, "/rerank": self._rerank}
        routes |= {path: {"POST": of_heads[path]} for path in service.head.routes}
        for version in ("", service.version):
            model = f"/v2/models/{service.name}" + (f"/versions/{version}" if version else "")
            routes |= {
                model: {"GET": _constant(json_response(service.description.model))},
                f"{model}/ready": {"GET": self._ready},
                f"{model}/config": {"GET": _constant(json_response(service.description.config))},
                f"{model}/stats": {"GET": self._statistics},
                f"{model}/infer": {"POST": partial(self._infer, version)},
            }
        return routes

    async def __call__(self, request: Request) -> Response:
        """Return the response to a request: an error response if the handler of the request raises an exception."""
        known = request.path in self.open_routes or request.path in self.routes
        with self.requests.request(request.method, request.path if known else None) as entry:
            response = await self._respond(request)
            entry.status = response.status
        # After an incomplete body, the connection must close, because the rest of the body may still arrive.
        request.keep_alive = request.keep_alive and request.complete and not self.closing
        body, accepted = response.body, request.headers.get(b"accept-encoding", b"")
        is_large = bool(accepted) and len(body) > LARGE_BODY_BYTES
        # Not in the single thread of `aside`: zlib releases Python's global lock, so threads can compress side by side.
        body, encoding = await asyncio.to_thread(compress, body, accepted) if is_large else compress(body, accepted)
        headers = response.headers
        if encoding:
            headers = (*headers, (b"content-encoding", encoding))
        if entry.id:
            headers = (*headers, (b"x-request-id", entry.id.encode()))
        return response._replace(body=body, headers=headers)

    async def _respond(self, request: Request) -> Response:
        try:
            if request.fault:
                raise request.fault
            handler = self._find(request, "GET" if request.method == "HEAD" else request.method)
            return await handler(request)
        except RefusedError as error:
            return refusal(error, request.path)
        except Exception:  # a bug of the service: the log shows it, the client does not see it
            log.exception("%s: internal error", request.method)
            return error_response(request.path, 500, "internal error")

    def _find(self, request: Request, method: str) -> Handler:
        """Return the handler for the path of a request and a method.

        Raises:
            RefusedError: the request lacks the token; the service has no token, and a page of another web site sent the
                request; or the path or the model is unknown.
        """
        if not self.token and request.path not in HEALTH:
            check_origin(request.headers, changes=method != "GET", public=self.public)
        methods = self.open_routes.get(request.path)
        if methods is None:
            if self.token and not is_authorized(request.headers, self.token):
                message = "this service requires a token: send it in a header, Authorization: Bearer TOKEN"
                raise RefusedError(Reason.UNAUTHENTICATED, message)
            methods = self.routes.get(request.path)
        if methods is None:
            raise self._unknown_path(request.path)
        if method not in methods:
            allow = ", ".join(["HEAD", *methods] if "GET" in methods else methods)
            return _constant(error_response(request.path, 405, "Method Not Allowed", ((b"allow", allow.encode()),)))
        return methods[method]

    def _unknown_path(self, path: str) -> RefusedError:
        if match := _MODEL.fullmatch(path):
            check = check_statistics if match[3] == "stats" else check_model
            check(self.service.name, match[1], match[2] or "")
        if _CONTROL.fullmatch(path):
            return RefusedError(Reason.UNAVAILABLE, "explicit model load / unload is not allowed")
        if path in clients.ERRORS:  # a path of other servers' APIs, which this model does not support
            head, name = self.service.head, self.service.name
            answers = " and ".join(["/classify", *head.routes])
            return RefusedError(Reason.NOT_FOUND, f"{name} is {head.what}: it responds to {answers}, not to {path}")
        return RefusedError(Reason.NOT_FOUND, "Not Found")

    async def _infer(self, version: str, request: Request) -> Response:
        length = request.headers.get(codec.LENGTH_HEADER)
        decode = partial(codec.decode, model=self.service.name, version=version, json_length=length)
        inference, form = await _decoded(request, decode)
        response = await self.service.infer(inference)
        data, json_length = await aside(response.size, partial(codec.encode, response, form))
        if json_length is None:
            return Response(data)
        return Response(data, content_type=OCTETS, headers=((codec.LENGTH_HEADER, b"%d" % json_length),))

    async def _classify(self, request: Request) -> Response:
        service = self.service
        decode = partial(codec.decode_classify, texts_per_row=service.texts_per_row, max_rows=service.limits.max_queue)
        texts, is_list = await _decoded(request, decode)
        return await service.classify(texts, lambda found: json_response(by_row(found) if is_list else found[0]))

    async def _embeddings(self, request: Request) -> Response:
        service = self.service
        decode = partial(clients.decode_embeddings, width=service.head.width, max_rows=service.limits.max_queue)
        asked = await _decoded(request, decode)
        check_model(service.name, asked.model or service.name)
        texts: list[Text] = [(text,) for text in asked.texts]
        return await service.run(texts, lambda ran: json_response(clients.embeddings(ran, asked, service.name)))

    async def _rerank(self, request: Request) -> Response:
        service, limits = self.service, self.service.limits
        decode = partial(clients.decode_rerank, max_rows=limits.max_queue, max_characters=limits.max_body_bytes)
        asked = await _decoded(request, decode)
        texts: list[Text] = [(asked.query, text) for text in asked.texts]
        return await service.run(texts, lambda ran: json_response(by_row(clients.ranked(ran, asked, service.head))))

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

    async def _statistics(self, _: Request) -> Response:
        return json_response(self.service.statistics())

    async def _metrics(self, _: Request) -> Response:
        # In a thread, because some drivers take milliseconds to respond.
        gpus = await asyncio.to_thread(self.gpus.read) if self.gpus else ()
        return Response(metrics.render(self.service, gpus), content_type=PROMETHEUS)


async def _decoded(request: Request, decode: Callable[[bytes], T]) -> T:
    """Read the body of a request, and return the result of `decode`, which gets the body.

    Raises:
        RefusedError: `read_body` or `decode` refuses the body.
    """
    body = await read_body(request)
    return await aside(len(body), partial(decode, body))


def _constant(response: Response) -> Handler:
    async def handler(_: Request) -> Response:
        return response

    return handler
