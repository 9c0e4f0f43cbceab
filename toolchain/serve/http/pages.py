"""The two pages for people: to try the model, and to read how to ask it. They load nothing from anywhere else."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NONE = "'none'"
_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page, and the headers that it is sent with."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def load(name: str) -> Page:
    """Return a page of this package."""
    return _page(_read(name).encode())


def docs(document: dict[str, Any]) -> Page:
    """Return an OpenAPI document as a page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return _page(environment.from_string(_read("docs.html")).render(document).encode())


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _page(body: bytes) -> Page:
    """Allow what stands in the page, by its digest, and nothing else."""
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(body):
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        allowed[kind.decode()].append(f"'sha256-{digest}'")
    sources = "; ".join(f"{kind}-src {' '.join(digests or [_NONE])}" for kind, digests in allowed.items())
    ends = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    policy = f"default-src 'none'; {sources}; connect-src 'self'; img-src data:; {ends}"
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",  # a newer release has another page at the same address
    }
    return Page(body, tuple((name.encode(), value.encode()) for name, value in headers.items()))
