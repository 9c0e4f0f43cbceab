"""Measures a served model with each number of streams in turn, using the server's own counts of tokens."""

import asyncio
import itertools
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from toolchain.base.amounts import counted
from toolchain.base.files import sha256_json
from toolchain.energy.calls import Measure
from toolchain.energy.record import NOT_REQUESTED
from toolchain.errors import MachineError
from toolchain.generate.prompts import check_prompts
from toolchain.generate.served.endpoint import Endpoint
from toolchain.generate.served.load import Endless, replies
from toolchain.generate.served.settings import ServedSettings
from toolchain.generate.served.stream import Reply, ask
from toolchain.records.served_generation import ServedGeneration, ServedRun, ServedText
from toolchain.runtimes.environment import describe

if TYPE_CHECKING:
    from aiohttp import ClientSession

Value = TypeVar("Value")

# New tokens per warm-up request, enough for a first pass and later steps. The warm-up also opens the connections.
WARM_UP_TOKENS = 3


@dataclass(frozen=True)
class Joules:
    """The energy of a request, in joules: with one new token (`first_j`), and with all new tokens (`whole_j`).

    `reason` is a code that says why they are None.
    """

    first_j: float | None = None
    whole_j: float | None = None
    reason: str | None = NOT_REQUESTED


@dataclass(frozen=True)
class Client:
    """An open HTTP session with a server, and the event loop that runs it."""

    endpoint: Endpoint
    session: "ClientSession"
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine in the event loop, and return its value."""
        return self.runner.run(work)

    @property
    def clock(self) -> Callable[[], float]:
        """The function that returns the time of the event loop, in seconds."""
        return self.runner.get_loop().time

    def asking(self, new: int) -> Callable[[str, Callable[[], None]], Coroutine[Any, Any, Reply]]:
        """Return the function that sends a prompt, asks for up to `new` tokens, and returns the reply."""
        return lambda prompt, on_part: ask(self.session, self.endpoint, prompt, new, clock=self.clock, on_part=on_part)


def run(
    endpoint: Endpoint,
    prompts: Sequence[str],
    settings: ServedSettings,
    *,
    place: str = "--prompt",
    energy: Measure | None = None,
    why_not: str = NOT_REQUESTED,
    gpus: Sequence[str] = (),
    runner: asyncio.Runner | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> ServedGeneration:
    """Send prompts to a server and measure its replies.

    Args:
        endpoint: the server, and the model to measure.
        prompts: texts. The server puts its chat template around each, unless the endpoint's path is TEXT.
        settings: number of new tokens, numbers of streams, rounds and time-out.
        place: where the prompts come from, for error messages.
        energy: function that calls its argument again and again without a pause, and returns the joules of one call, or
            a reason code if they could not be measured; None if energy is not to be measured.
        why_not: reason code for the record if `energy` is None.
        gpus: names of the GPUs whose energy is measured.
        runner: event loop of the client, whose clock is used; None makes a new one.
        log: takes one line of text about the progress.

    Raises:
        InputError: there is no prompt, the server refuses a request, or its reply cannot be used.
        MachineError: aiohttp is not installed, or the server cannot be reached, stops or stalls.
    """
    check_prompts(prompts, prompts, source=place)
    measured, first = _measured(endpoint, prompts, settings, energy, why_not, runner, log)
    return {
        "schema": 1,
        "model": endpoint.model,
        "backend": "openai",
        "url": endpoint.address,
        "max_new_tokens": settings.max_new_tokens,
        "rounds": settings.rounds,
        "prompts_sha256": sha256_json(list(prompts)),
        "gpus": list(gpus),
        "texts": [_text(prompt, one) for prompt, one in zip(prompts, first, strict=True)],
        "runs": measured,
        "environment": describe(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _measured(
    endpoint: Endpoint,
    prompts: Sequence[str],
    settings: ServedSettings,
    energy: Measure | None,
    why_not: str,
    runner: asyncio.Runner | None,
    log: Callable[[str], None],
) -> tuple[list[ServedRun], list[Reply]]:
    """Return the figures of each number of streams, and one reply to each prompt. For the arguments, see `run`."""
    with nullcontext(runner) if runner else asyncio.Runner() as runner:
        client = Client(endpoint, runner.run(_open(settings, _aiohttp())), runner)
        try:
            measured: list[ServedRun] = []
            first: list[Reply] = []
            for streams in settings.levels:
                log(f"{endpoint.model}: measuring with {counted(streams, 'stream')}")
                seconds, found = _timed(client, prompts, settings, streams)
                joules = Joules(reason=why_not)
                if energy:
                    joules = _joules(client, list(prompts), settings.max_new_tokens, streams, energy, log)
                measured.append(_run(streams, seconds, found, joules))
                first = first or found[: len(prompts)]
        finally:
            runner.run(client.session.close())
    return measured, first


def _text(prompt: str, reply: Reply) -> ServedText:
    return {
        "prompt": prompt,
        "text": reply.text,
        "prompt_tokens": reply.prompt_tokens,
        "generated_tokens": reply.generated_tokens,
        "ended": reply.ended,
    }


def _aiohttp() -> Any:  # the module
    try:
        import aiohttp
    except ImportError as error:
        raise MachineError(
            "--backend openai: the HTTP client aiohttp is not installed. "
            "Install it with: pip install 'encoder-toolchain[client]'."
        ) from error
    return aiohttp


async def _open(settings: ServedSettings, aiohttp: Any) -> "ClientSession":
    """Open a session that may use any number of connections, and reads no proxy or password from the environment."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.timeout, sock_read=settings.timeout)
    session: ClientSession = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
    return session


def _timed(client: Client, prompts: Sequence[str], settings: ServedSettings, streams: int) -> tuple[float, list[Reply]]:
    """Send every prompt equally often with `streams` streams, after a warm-up; return the seconds and the replies."""
    warm_up = itertools.islice(itertools.cycle(prompts), streams)
    client.run(replies(client.asking(min(WARM_UP_TOKENS, settings.max_new_tokens)), warm_up, streams))
    passes = settings.rounds * math.ceil(streams / len(prompts))
    start_s = client.clock()
    found = client.run(replies(client.asking(settings.max_new_tokens), [*prompts] * passes, streams))
    return client.clock() - start_s, found


def _joules(
    client: Client, prompts: list[str], new: int, streams: int, energy: Measure, log: Callable[[str], None]
) -> Joules:
    log(f"energy: measuring {counted(streams, 'stream')} with one new token per request, then with {new}")
    first_j, reason = _request_j(client, prompts, 1, streams, energy)
    if reason is not None or new == 1:
        return Joules(first_j, first_j, reason)
    whole_j, reason = _request_j(client, prompts, new, streams, energy)
    return Joules(first_j, whole_j, reason)


def _request_j(
    client: Client, prompts: list[str], new: int, streams: int, energy: Measure
) -> tuple[float | None, str | None]:
    """Return the joules of one request while `streams` streams run without a pause, and a reason code if it is None.

    Replies end too seldom to be counted in a measurement window. So the energy is measured per part of text, and
    multiplied by the mean number of parts in a reply. Parts are counted in groups of `streams`, because the parts of
    streams that run in step arrive together.
    """

    async def start() -> Endless:
        return Endless(client.asking(new), prompts, streams)

    load = client.run(start())
    try:
        client.run(load.settle(streams))
        call_j, reason = energy(lambda: client.run(load.more(streams)))
        client.run(load.drain())
    finally:
        client.run(load.cancel())
    parts = sum(len(one.times_s) for one in load.done)
    return call_j and call_j / streams * parts / len(load.done), reason


def _run(streams: int, seconds: float, found: list[Reply], joules: Joules) -> ServedRun:
    prompt, generated = (
        sum(counts) for counts in zip(*((one.prompt_tokens, one.generated_tokens) for one in found), strict=True)
    )
    gaps = [after - before for one in found for before, after in itertools.pairwise(one.times_s)]
    means = [one.per_token_s for one in found if one.per_token_s is not None]
    cached = [one.cached_tokens for one in found]
    firsts = _ms([one.first_s for one in found])
    (gap50, gap99), (mean50, mean99) = _ms(gaps), _ms(means)
    assert firsts[0] is not None
    assert firsts[1] is not None
    later = generated / len(found) - 1
    return {
        "concurrency": streams,
        "requests": len(found),
        "seconds": seconds,
        "prompt_tokens": prompt,
        "cached_prompt_tokens": None if None in cached else sum(one or 0 for one in cached),
        "generated_tokens": generated,
        "parts": sum(len(one.times_s) for one in found),
        "tokens_per_s": generated / seconds,
        "first_token_ms_p50": firsts[0],
        "first_token_ms_p99": firsts[1],
        "inter_token_ms_p50": gap50,
        "inter_token_ms_p99": gap99,
        "ms_per_token_p50": mean50,
        "ms_per_token_p99": mean99,
        "j_per_prompt_token": _over(joules.first_j, prompt / len(found)),
        "j_per_generated_token": _over(_less(joules.whole_j, joules.first_j), later),
        "per_generated_token_j": _over(joules.whole_j, generated / len(found)),
        "energy_reason": joules.reason,
    }


def _ms(seconds: list[float]) -> tuple[float | None, float | None]:
    """Return the median and the 99th percentile of times, in milliseconds; None for both if there are no times."""
    if not seconds:
        return None, None
    p50, p99 = np.percentile(seconds, (50, 99)).tolist()
    return 1e3 * p50, 1e3 * p99


def _less(whole: float | None, part: float | None) -> float | None:
    return None if whole is None or part is None else whole - part


def _over(joules: float | None, tokens: float) -> float | None:
    return None if joules is None or tokens <= 0 else joules / tokens
