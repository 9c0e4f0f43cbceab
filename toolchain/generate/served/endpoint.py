"""A server that speaks OpenAI's HTTP interface: its address, its key, and its errors in one line each."""

import os
import re
import socket
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.base.files import MAX_SECRET_BYTES, open_file
from toolchain.errors import InputError, MachineError, UsageError

# The variable that clients of this interface read their key from.
KEY = "OPENAI_API_KEY"

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

# HTTP status -> advice.
ADVICE = {
    400: f"Check --model; if the model has no chat template, give --url http://HOST:PORT{TEXT}; see the server's log.",
    401: f"Set {KEY} to the server's key, or give a file with it: --token-file FILE.",
    403: f"Set {KEY} to a key that may use this model, or give a file with it: --token-file FILE.",
    404: "Give --model as the server names it (it lists its models at /v1/models), or another --url.",
    429: "Give a smaller --concurrency, or raise the limit of the server.",
}


@dataclass(frozen=True)
class Endpoint:
    """A model of a server.

    Attributes:
        url: http://HOST:PORT, with /v1/chat/completions (which is the default) or /v1/completions behind it.
        model: its name, as the server knows it.
        key: bearer token, None without one. No message, log or record has it.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raise a UsageError if the URL is not one of a server, or has a key in it."""
        try:
            parts = urllib.parse.urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:  # a malformed address or port
            parts, host = urllib.parse.urlsplit(""), None
        if any(sign in self.url for sign in "@?#"):  # also where the URL has another fault, whose message shows it
            raise UsageError(f"--url: it contains a name, a key or a query. Set {KEY} to the key, and leave it out.")
        if parts.scheme not in ("http", "https") or not host or self._path(parts.path) is None:
            raise UsageError(
                f"--url {self.url}: not the URL of a server. Give http://HOST:PORT, or add {CHAT} or {TEXT}."
            )

    @staticmethod
    def _path(path: str) -> str | None:
        return {"": CHAT, "/v1": CHAT, CHAT: CHAT, TEXT: TEXT}.get(path.rstrip("/"))

    @property
    def host(self) -> str:
        """The name or address of the server."""
        return urllib.parse.urlsplit(self.url).hostname or ""

    @property
    def path(self) -> str:
        """CHAT or TEXT."""
        return self._path(urllib.parse.urlsplit(self.url).path) or CHAT

    @property
    def address(self) -> str:
        """The whole URL of a request."""
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{self.path}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request. A reply is not compressed, because that would hold back tokens."""
        own = {"Accept-Encoding": "identity", "Accept": "text/event-stream"}
        return own | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def body(self, prompt: str, new: int) -> dict[str, Any]:  # the request as JSON
        """Return a request for at most `new` tokens, greedy, streamed, with the server's own count at its end."""
        asked = {"prompt": prompt} if self.path == TEXT else {"messages": [{"role": "user", "content": prompt}]}
        return {
            "model": self.model,
            **asked,
            "max_tokens": new,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def fault(self, what: str, advice: str) -> InputError:
        """Return the error for a reply that cannot be used."""
        return InputError(f"{self.url}: {what}. {advice}")

    def lost(self, what: str, advice: str) -> MachineError:
        """Return the error for a server that is not there, or that stopped."""
        return MachineError(f"{self.url}: {what}. {advice}")

    def refused(self, status: int) -> InputError:
        """Return the error for an HTTP status other than 200.

        What the server wrote is left out: for 401 it may have a part of the key.
        """
        advice = ADVICE.get(status, "Look at the log of the server.")
        return self.fault(f"the server refuses a request for the model {self.model} with status {status}", advice)


def read_key(file: str | None) -> str | None:
    """Return the key from a file, else from the environment, else None.

    Raises:
        InputError: the file cannot be read, or what it has is not a key.
    """
    if file is None:
        where, key = KEY, os.environ.get("OPENAI_API_KEY", "").strip()
        if not key:
            return None
    else:
        where = f"--token-file {file}"
        try:
            with open_file(Path(file)) as opened:
                key = opened.read(MAX_SECRET_BYTES).decode("latin-1").strip()
        except OSError as error:
            raise InputError(f"{where}: {error.strerror}. Give a file with the server's key.") from None
    if not re.fullmatch("[!-~]+", key):  # otherwise an error of the HTTP client would show it
        raise InputError(f"{where}: not one word of ASCII letters, digits and signs. Give the server's key.")
    return key


def is_here(host: str) -> bool:
    """Return whether a host is this machine, that is, whether one of its addresses can be bound to."""
    with suppress(OSError, UnicodeError):
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, protocol) as tried, suppress(OSError):
                tried.bind(address)
                return True
    return False
