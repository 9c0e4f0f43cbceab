"""The runtime for a remote server of the Open Inference Protocol, which receives texts and returns logits.

Requests are sent with Triton's HTTP client.
"""

import re
import textwrap
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.files import MAX_SECRET_BYTES, open_file
from toolchain.base.tensors import TEXT_INPUTS, Batch, Infer
from toolchain.errors import InputError, MachineError, UsageError

# Largest time in seconds to connect, and for a whole response.
TIMEOUT_S = 120.0

# Largest accepted body of a response, in bytes: 64 MiB. Logits of 64 rows and 2,000 classes are 3 MB as JSON.
MAX_RESPONSE_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 16

NAME_ONE = "Name a model of the server: --url .../v2/models/NAME."

# HTTP status -> advice in the error message.
ADVICE = {
    "401": "Give the server's token with --token-file.",
    "403": "Give the server's token with --token-file.",
    "404": NAME_ONE,
}


@dataclass(frozen=True)
class Server:
    """A model on a server. Its URL is `http://HOST:PORT`, with `/v2/models/NAME` if the server has several models.

    `texts` is the number of texts of a row, 1 or 2. `output` is the name of the output that has the logits.
    `bundle_sha256` is the digest of the bundle that the server should serve. If the server states a digest, both must
    be equal.
    """

    url: str
    texts: int
    bundle_sha256: str
    token_file: str | None = None
    output: str = "LOGITS"

    @property
    def parts(self) -> urllib.parse.SplitResult:
        """The URL, split into its parts.

        Raises:
            UsageError: the URL is malformed, or its path is not that of a model.
        """
        if not _is_server(self.url):
            raise UsageError(
                f"--url {self.url}: not the URL of a server. Give http://HOST:PORT, or http://HOST:PORT/v2/models/NAME."
            )
        return urllib.parse.urlsplit(self.url)

    @property
    def model(self) -> str | None:
        """The name of the model, or None if the URL does not state it."""
        return self.parts.path.strip("/").rpartition("/")[2] or None

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that authorise a request: a bearer token, or none without `token_file`.

        Raises:
            InputError: the token's file cannot be read, or its content is not a token.
        """
        if self.token_file is None:
            return {}
        try:
            with open_file(Path(self.token_file)) as file:
                token = file.read(MAX_SECRET_BYTES).strip()
        except OSError as error:
            raise InputError(f"--token-file {self.token_file}: {error.strerror}. Give a readable file.") from None
        if not re.fullmatch(rb"[!-~]+", token):  # with other characters, the HTTP client's error would show the token
            what = "not one word of ASCII letters, digits and signs. Give the server's token file."
            raise InputError(f"--token-file {self.token_file}: {what}")
        return {"Authorization": f"Bearer {token.decode()}"}


def _is_server(url: str) -> bool:
    try:
        found = urllib.parse.urlsplit(url)
        host = found.hostname or ""
        _ = found.port, host.encode("idna")  # each raises ValueError for a malformed value
    except ValueError:
        return False
    known = re.fullmatch("(v2/models/[^/]+)?", found.path.strip("/"))
    return found.scheme in ("http", "https") and bool(host and known)


def import_client() -> Any:
    """Import and return the module of Triton's HTTP client.

    Raises:
        MachineError: the client is not installed.
    """
    try:
        from tritonclient import http
    except ImportError as error:
        raise MachineError(
            "Triton's client is not installed. Install it with: pip install 'encoder-toolchain[client]'."
        ) from error
    return http


@contextmanager
def open_remote(server: Server, **_: Any) -> Iterator[Infer]:
    """Yield `infer`, a function that sends a batch of texts (from `tokenize.RemoteTexts`) to a server.

    A batch is split into requests of at most the server's maximum batch size. Arguments other than `server` have no
    effect.

    Raises:
        MachineError: the client is not installed, or no server responds.
        InputError: the server lacks the model, has several models and the URL names none, refuses a request, or does
            not speak the protocol.
    """
    http = import_client()
    address = server.parts
    client = _bounded(http, server)(
        address.netloc, ssl=address.scheme == "https", connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S
    )

    def ask(name: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            return getattr(client, name)(*arguments, headers=server.headers, **keywords)
        except http.InferenceServerException as error:
            status = str(error.status())
            why = f"responds with {status}" if error.debug_details() else textwrap.shorten(str(error.message()), 300)
            advice = ADVICE.get(status, "See the server's log.")
            raise InputError(f"{server.url}: {why.rstrip('.')}. {advice}") from None
        except (OSError, HTTPException) as error:
            raise MachineError(
                f"{server.url}: no server responds ({error}). Start the server, or give another --url."
            ) from None

    try:
        with _protocol_errors(server):
            model = server.model or _only_model(server, ask)
            config = ask("get_model_config", model)
            _check_model(server, model, config)
            most = max(1, int(config.get("max_batch_size", 0)))

        def infer(batch: Batch) -> NDArray[np.float32]:
            texts = [batch[name] for name in TEXT_INPUTS[: server.texts]]
            with _protocol_errors(server):
                parts = [
                    _logits(http, ask, model, [part[start : start + most] for part in texts], server.output)
                    for start in range(0, len(texts[0]), most)
                ]
            return np.concatenate(parts)

        yield infer
    finally:
        client.close()


class _Body:
    """An HTTP response whose body is already in memory, with the methods that Triton's client calls."""

    def __init__(self, response: Any, body: bytes) -> None:
        self.get, self.status_code = response.get, response.status_code
        self._body = body

    def read(self, length: int | None = None) -> bytes:
        """Return the next `length` bytes of the body, or all remaining ones if `length` is None."""
        end = len(self._body) if length is None else length
        found, self._body = self._body[:end], self._body[end:]
        return found


def _bounded(http: Any, server: Server) -> Any:
    """Return a subclass of Triton's client that limits size and time of a response, and refuses compressed ones."""
    import gevent

    def read(request: Callable[..., Any], *arguments: Any, **keywords: Any) -> _Body:
        parts, size = [], 0
        with gevent.Timeout(TIMEOUT_S, TimeoutError(f"its response takes longer than {TIMEOUT_S:g} s")):
            response = request(*arguments, **keywords)
            # The client did not request compression, and would decompress the response without a size limit.
            if response.get("Content-Encoding"):
                raise ValueError("a compressed response")
            while part := response.read(_BLOCK_BYTES):
                size += len(part)
                if size > MAX_RESPONSE_BYTES:
                    what = f"a response exceeds {MAX_RESPONSE_BYTES >> 20} MiB. Give another --url."
                    raise InputError(f"{server.url}: {what}")
                parts.append(part)
        return _Body(response, b"".join(parts))

    class Client(http.InferenceServerClient):  # type: ignore[misc]
        def _get(self, *arguments: Any, **keywords: Any) -> _Body:
            return read(super()._get, *arguments, **keywords)

        def _post(self, *arguments: Any, **keywords: Any) -> _Body:
            return read(super()._post, *arguments, **keywords)

    return Client


@contextmanager
def _protocol_errors(server: Server) -> Iterator[None]:
    """Run the body; turn an error from a response that does not follow the protocol into an InputError.

    Raises:
        InputError: the body met such a response, for example a web page, or JSON without the expected keys.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        what = "the server does not speak the Open Inference Protocol. Give the --url of one that does."
        raise InputError(f"{server.url}: {what}") from error


def _check_model(server: Server, model: str, config: dict[str, Any]) -> None:  # Any: Triton's JSON
    """Refuse a model that has other inputs or outputs than expected, or states the digest of another bundle.

    Raises:
        InputError: the model differs in one of these.
    """
    takes, gives = ([tensor["name"] for tensor in config.get(side, [])] for side in ("input", "output"))
    wanted = TEXT_INPUTS[: server.texts]
    if set(takes) & set(TEXT_INPUTS) != set(wanted) or server.output not in gives:
        raise InputError(
            f"{server.url}: {model} takes {', '.join(takes)} and returns {', '.join(gives)}, "
            f"not {' and '.join(wanted)} and {server.output}. {NAME_ONE}"
        )
    stated = config.get("parameters", {}).get("bundle_sha256", {}).get("string_value")
    if stated not in (None, server.bundle_sha256):
        raise InputError(
            f"{server.url}: serves the bundle {stated[:12]}, not {server.bundle_sha256[:12]} (SHA-256). "
            "Give the bundle that is served, or serve this one."
        )


def _only_model(server: Server, ask: Any) -> str:
    """Return the name of the server's only model that takes texts and returns logits.

    Raises:
        InputError: the server has no such model, or several.
    """
    wanted = set(TEXT_INPUTS[: server.texts])
    entries = ask("get_model_repository_index")  # one entry for each version of a model
    found = []
    for name in sorted({entry["name"] for entry in entries if entry.get("state", "READY") == "READY"}):
        about = ask("get_model_metadata", name)
        takes, gives = ({tensor["name"] for tensor in about[side]} for side in ("inputs", "outputs"))
        if takes & set(TEXT_INPUTS) == wanted and server.output in gives:
            found.append(name)
    wanted_and_returned = (
        f"{' and '.join(sorted(wanted))} and {'return' if len(found) > 1 else 'returns'} {server.output}"
    )
    if not found:
        raise InputError(
            f"{server.url}: no ready model takes {wanted_and_returned}. Start a server with a model of this bundle."
        )
    if len(found) > 1:
        raise InputError(f"{server.url}: several models take {wanted_and_returned}: {', '.join(found)}. {NAME_ONE}")
    return str(found[0])


def _logits(http: Any, ask: Any, model: str, texts: list[NDArray[Any]], output: str) -> NDArray[np.float32]:
    """Send one request and return its logits, float32 [rows, classes].

    `texts` has one array of str objects, [rows, 1], for each text of a row.

    Raises:
        ValueError: the response has logits of another shape.
    """
    inputs = []
    for name, part in zip(TEXT_INPUTS, texts, strict=False):
        inputs.append(http.InferInput(name, list(part.shape), "BYTES"))
        inputs[-1].set_data_from_numpy(part)
    answer = ask("infer", model, inputs, outputs=[http.InferRequestedOutput(output)])
    logits = np.asarray(answer.as_numpy(output), np.float32)
    if logits.ndim != 2 or len(logits) != len(texts[0]):
        raise ValueError(f"logits of shape {logits.shape} for {len(texts[0])} rows")
    return logits
