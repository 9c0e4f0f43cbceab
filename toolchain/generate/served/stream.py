"""Reads one streamed reply: server-sent events as they arrive, and the time of each part of the text.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html; names of the fields: OpenAI's API reference.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolchain.errors import MachineError
from toolchain.generate.served.endpoint import Endpoint

if TYPE_CHECKING:
    from aiohttp import ClientSession

# Largest event that is accepted, in bytes. An event with one token has about 300 bytes.
MAX_EVENT_BYTES = 1 << 20

# Largest reply in bytes, so that a server that never ends its reply cannot fill the memory; and the largest count of
# tokens that is believed.
MAX_REPLY_BYTES = 64 << 20
MAX_TOKENS = 1 << 31

LOG = "Look at the server's log."

# Longest wait, in seconds, for the end of a reply after its last event. The connection can be reused only after that
# end.
END_S = 1.0

# Keys that hold the text of a part. Only the first key found in each group is read, because some servers send the
# reasoning under two keys.
TEXTS = (("reasoning_content", "reasoning"), ("content",), ("text",))


@dataclass(frozen=True)
class Reply:
    """A complete reply. Times are in seconds on the client's clock.

    Attributes:
        prompt_tokens: number of tokens of the prompt with its chat template, as the server counts them.
        generated_tokens: number of tokens of the reply, as the server counts them.
        cached_tokens: number of the prompt's tokens that the server took from its cache; None if it does not say.
        text: the generated text.
        ended: why the reply ended, in the server's word: stop or length.
        sent_s: time at which the request was sent.
        times_s: times at which the parts with text arrived; the time of the end alone if there was no text.
    """

    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int | None
    text: str
    ended: str
    sent_s: float
    times_s: list[float]

    @property
    def first_s(self) -> float:
        """Seconds from the request to the first token."""
        return self.times_s[0] - self.sent_s

    @property
    def per_token_s(self) -> float | None:
        """Mean seconds per token after the first; None if there is only one token, or one part of text."""
        later = self.generated_tokens - 1
        return (self.times_s[-1] - self.times_s[0]) / later if later > 0 and len(self.times_s) > 1 else None


async def ask(
    session: "ClientSession",
    endpoint: Endpoint,
    prompt: str,
    new: int,
    *,
    clock: Callable[[], float],
    on_part: Callable[[], None] = lambda: None,
) -> Reply:
    """Send a prompt and read the reply to its end. `on_part` is called when a part with text arrives.

    Raises:
        InputError: the server refuses the request, or its reply cannot be used.
        MachineError: the server cannot be reached, stops or stalls, or the connection breaks.
    """
    import aiohttp

    reading = _Reading(endpoint, clock, on_part)
    sent_s = clock()
    try:
        async with session.post(
            endpoint.address, json=endpoint.body(prompt, new), headers=endpoint.headers, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise endpoint.refused(response.status)
            if response.content_type == "application/json":
                raise endpoint.fault("the reply is not a stream", "Give the --url of a server that supports `stream`.")
            async for data in _events(response.content.iter_any(), endpoint):
                if data == b"[DONE]":
                    break
                reading.add(data)
            with suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(END_S):
                    async for _ in response.content.iter_any():
                        pass
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _lost(error, endpoint, session.timeout.sock_read, begun=bool(reading.times_s)) from None
    return reading.reply(sent_s)


def _lost(error: Exception, endpoint: Endpoint, timeout_s: float | None, *, begun: bool) -> MachineError:
    """Return the error for a connection that failed. TimeoutError is tested first, because it is an OSError too."""
    import aiohttp

    if isinstance(error, TimeoutError):
        what = f"the server has sent nothing for {timeout_s:g} s"
        return endpoint.lost(what, f"{LOG} If it is only slow, give a longer --timeout.")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return endpoint.lost(
            "the TLS connection failed, or the certificate of the server was not accepted",
            "Check whether --url must begin with http or https, and check the certificate.",
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return endpoint.lost("no server responds", "Start the server, or give another --url.")
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | OSError):
        when = "in the middle of a reply" if begun else "before a reply"
        return endpoint.lost(f"the server closed the connection {when}", LOG)
    return endpoint.lost("the server does not respond in valid HTTP", "Give another --url.")


async def _events(blocks: AsyncIterator[bytes], endpoint: Endpoint) -> AsyncIterator[bytes]:
    """Yield the data of each event. A block of bytes may end within a line, or within a character.

    Servers of this interface write an event's JSON on one line.

    Raises:
        InputError: an event or the whole reply is too large.
    """
    rest, size = b"", 0
    async for block in blocks:
        size += len(block)
        if size > MAX_REPLY_BYTES:
            raise endpoint.fault(f"a reply exceeds {MAX_REPLY_BYTES >> 20} MiB", LOG)
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise endpoint.fault(f"an event exceeds {MAX_EVENT_BYTES >> 20} MiB", "Give another --url.")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()
    if rest.startswith(b"data:"):  # the last event may lack its line end
        yield rest.removeprefix(b"data:").strip()


@dataclass
class _Reading:
    """The parts of a reply that have arrived so far."""

    endpoint: Endpoint
    clock: Callable[[], float]
    on_part: Callable[[], None]
    times_s: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ended: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)

    def add(self, data: bytes) -> None:
        """Add the data of an event to the reply.

        Raises:
            InputError: the data is not JSON of this interface, or it is an error of the server.
        """
        now_s = self.clock()
        event = self._parsed(data)
        if event.get("error"):
            raise self.endpoint.fault("the server ends the reply with an error of its own", LOG)
        usage, choices = event.get("usage") or {}, event.get("choices") or []
        if not (
            isinstance(usage, dict) and isinstance(choices, list) and all(isinstance(one, dict) for one in choices)
        ):
            raise self._foreign()
        self.usage |= usage
        text = ""
        for choice in choices:
            part = choice.get("delta", choice) or {}
            if not isinstance(part, dict):
                raise self._foreign()
            for keys in TEXTS:
                text += next((part[key] for key in keys if isinstance(part.get(key), str) and part[key]), "")
            ended = choice.get("finish_reason")
            self.ended = _valid(ended) if isinstance(ended, str) and ended else self.ended
        if text or (self.ended and not self.times_s):
            self.times_s.append(now_s)
            self.texts.append(_valid(text))
            self.on_part()

    def _parsed(self, data: bytes) -> dict[str, Any]:
        try:
            event = json.loads(data.decode())
        except UnicodeDecodeError as error:
            cut = error.reason == "unexpected end of data"
            what = "the stream ends within a character" if cut else "the stream is not UTF-8"
            raise self.endpoint.fault(what, LOG) from None
        except (ValueError, RecursionError):
            raise self.endpoint.fault("the stream has an event that is not JSON", LOG) from None
        if not isinstance(event, dict):
            raise self._foreign()
        return event

    def _foreign(self) -> Exception:
        return self.endpoint.fault("the reply does not follow OpenAI's interface", "Give another --url.")

    def _count(self, key: str) -> int | None:
        return _number(self.usage.get(key))

    def reply(self, sent_s: float) -> Reply:
        """Return the complete reply.

        Raises:
            InputError: the server did not report its counts of tokens.
            MachineError: the stream ended before the reply was complete.
        """
        if not self.ended:
            raise self.endpoint.lost("the stream ends before its reply does", LOG)
        prompt, generated = self._count("prompt_tokens"), self._count("completion_tokens")
        if prompt is None or generated is None:
            raise self.endpoint.fault(
                "the server does not count its tokens: `usage` is missing from the stream",
                "Use a release of the server that supports stream_options.include_usage.",
            )
        details = self.usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        return Reply(
            prompt_tokens=prompt,
            generated_tokens=generated,
            cached_tokens=_number(cached),
            text="".join(self.texts),
            ended=self.ended,
            sent_s=sent_s,
            times_s=self.times_s,
        )


def _valid(text: str) -> str:
    """Return a text that can be encoded as UTF-8: lone surrogates, which JSON may contain, are replaced."""
    return text.encode(errors="replace").decode()


def _number(value: object) -> int | None:
    """Return `value` if it is a valid number of tokens, or None if it is anything else."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None
