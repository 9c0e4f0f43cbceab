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

# HTTP status of a failed request -> advice for the error message.
ADVICE = {
    400: f"Check --model. If the model has no chat template, give --url http://HOST:PORT{TEXT}. See the server's log.",
    401: f"Set {KEY} to the server's key, or give a file with it: --token-file FILE.",
    403: f"Set {KEY} to a key that may use this model, or give a file with it: --token-file FILE.",
    404: "Give --model as the server names it (it lists its models at /v1/models), or another --url.",
    429: "Give a smaller --concurrency, or raise the server's limit of requests.",
}


@dataclass(frozen=True)
class Endpoint:
    """A model that a server offers.

    Attributes:
        url: http://HOST:PORT, which may be followed by /v1/chat/completions (the default) or /v1/completions.
        model: the name by which the server knows the model.
        key: bearer token; None if the server needs none. It never appears in messages, logs or records.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raise UsageError if the URL is not the URL of a server, or contains a key."""
        try:
            parts = urllib.parse.urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:  # a malformed address or port
            parts, host = urllib.parse.urlsplit(""), None
        # This comes first, because the messages about other faults show the URL.
        if any(sign in self.url for sign in "@?#"):
            raise UsageError(
                f"--url: the URL contains a name, a key or a query. Remove this part, and set {KEY} to the key."
            )
        if parts.scheme not in ("http", "https") or not host or self._path(parts.path) is None:
            raise UsageError(
                f"--url {self.url}: this is not the URL of a server. Give http://HOST:PORT, which may be followed by "
                f"{CHAT} or {TEXT}."
            )

    @staticmethod
    def _path(path: str) -> str | None:
        return {"": CHAT, "/v1": CHAT, CHAT: CHAT, TEXT: TEXT}.get(path.rstrip("/"))

    @property
    def host(self) -> str:
        """The host name or IP address of the server."""
        return urllib.parse.urlsplit(self.url).hostname or ""

    @property
    def path(self) -> str:
        """The path of a request: CHAT or TEXT."""
        return self._path(urllib.parse.urlsplit(self.url).path) or CHAT

    @property
    def address(self) -> str:
        """The full URL of a request."""
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{self.path}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request. They ask for no compression of the reply, because that would delay tokens."""
        own = {"Accept-Encoding": "identity", "Accept": "text/event-stream"}
        return own | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def body(self, prompt: str, new: int) -> dict[str, Any]:  # the request as JSON
        """Return a request for up to `new` tokens: greedy, streamed, with the server's counts of tokens at the end."""
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
        """Return the error for a server that cannot be reached, or that stopped."""
        return MachineError(f"{self.url}: {what}. {advice}")

    def refused(self, status: int) -> InputError:
        """Return the error for an HTTP status other than 200.

        The text of the response is left out, because with status 401 it may contain a part of the key.
        """
        advice = ADVICE.get(status, "Look at the server's log.")
        return self.fault(f"the server refuses a request for the model {self.model} with status {status}", advice)


def read_key(file: str | None) -> str | None:
    """Return the server's key from a file, or without a file from the environment; None if there is no key.

    Raises:
        InputError: the file cannot be read, or its content is not a key.
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
    if not re.fullmatch("[!-~]+", key):  # otherwise an error message of the HTTP client would show the key
        raise InputError(f"{where}: the key is not one word of ASCII letters, digits and signs. Give the server's key.")
    return key


def is_here(host: str) -> bool:
    """Return whether a host is this machine, that is, whether a socket can be bound to one of its addresses."""
    with suppress(OSError, UnicodeError):
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, protocol) as tried, suppress(OSError):
                tried.bind(address)
                return True
    return False
