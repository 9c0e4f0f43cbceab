"""The two web pages: one to try the model, one that documents the API. They load nothing from other hosts."""

import base64
import hashlib
import json
import re
from pathlib import Path

from toolchain.serve.http.openapi import OpenApi
from toolchain.serve.http.request import Response

_NONE = "'none'"
_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


HTML = b"text/html; charset=utf-8"


def load(name: str) -> Response:
    """Return the response with a static page: the file `name` in this folder."""
    return _page(_read(name).encode())


def docs(document: OpenApi) -> Response:
    """Return the response with the page that documents the API. The page is made from the OpenAPI document."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return _page(environment.from_string(_read("docs.html")).render(document).encode())


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _page(body: bytes) -> Response:
    """Return the response with an HTML page and its Content-Security-Policy.

    The policy allows only the page's own inline scripts and styles, by their SHA-256 digests, and requests to this
    service.

    Source: Content Security Policy Level 3.
    """
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(body):
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        allowed[kind.decode()].append(f"'sha256-{digest}'")
    sources = "; ".join(f"{kind}-src {' '.join(digests or [_NONE])}" for kind, digests in allowed.items())
    rest = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    policy = f"default-src 'none'; {sources}; connect-src 'self'; img-src data:; {rest}"
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",  # after an upgrade, the page at this address is a new one
    }
    return Response(body, 200, HTML, tuple((name.encode(), value.encode()) for name, value in headers.items()))
