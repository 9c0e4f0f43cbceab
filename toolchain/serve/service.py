"""The service of one bundle, which both HTTP and gRPC call.

Any failure after a request is checked becomes a RefusedError.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits
from toolchain.bundle.names import check_name
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Text
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.example import example_rows
from toolchain.evaluation.runtime_choice import find_to_run
from toolchain.recipe.tables import AUTO, BACKENDS
from toolchain.records.serving import Response, ServiceInfo, StatisticsResponse
from toolchain.serve import outputs, request_log
from toolchain.serve.aside import aside
from toolchain.serve.batching.stages import SECOND
from toolchain.serve.checks import VERSION, Checks, check_model
from toolchain.serve.counters import Counters, Times
from toolchain.serve.http.openapi import Shown
from toolchain.serve.limits import DEFAULTS, Limits
from toolchain.serve.metadata import describe
from toolchain.serve.model import ServedModel, open_model
from toolchain.serve.protocol import InferRequest, InferResponse, Reason, RefusedError, invalid

log = logging.getLogger(__name__)

T = TypeVar("T")


class Ran(NamedTuple):
    """The result of running rows.

    It has the logits, float32 [rows, *row]; whether each text was cut, bool [rows]; the number of tokens in all rows;
    and how long each phase took.
    """

    logits: Logits
    cut: NDArray[np.bool_]
    tokens: int
    times: Times


# Number of example rows that the web page shows.
EXAMPLES = 4

# Texts of a request with more characters than this are tokenised in a thread, because they would block the event loop.
LONG_CHARACTERS = 4096

# Reasons of refusals that are counted as failures -> Triton's names for them. Other refusals are mistakes of the client
# and are not counted.
FAILURES = {Reason.INTERNAL: "BACKEND", Reason.UNAVAILABLE: "REJECTED"}


class Service:
    """A served model: it checks requests, runs their rows, and counts them."""

    version = VERSION

    def __init__(self, name: str, model: ServedModel, counters: Counters) -> None:
        """Create the service of an open model; requests call the model `name`."""
        resolved = model.target.resolved
        self.name, self.counters, self.limits = name, counters, model.limits
        self.texts_per_row, self.device = resolved.head.texts_per_row, model.target.device
        self._model, self._draining = model, False
        self.head, self.description = resolved.head, describe(name, model.target, model.limits)
        self._checks = Checks(
            name,
            self.texts_per_row,
            resolved.source.facts.values,
            resolved.max_length,
            model.tokenizer.pad_values,
            self.limits,
            self.head.outputs,
        )

    @functools.cached_property
    def shown(self) -> Shown:
        """What the pages show: the model's name, an example response, and rows of its own data."""
        rows = example_rows(self._model.target.resolved, EXAMPLES)
        return Shown(self.name, self.head.example, rows, self.head.routes)

    @property
    def ready(self) -> bool:
        """Whether load balancers should send requests: False while draining, and when every engine has failed."""
        return not self._draining and self.alive

    @property
    def alive(self) -> bool:
        """Whether the service can answer requests.

        It is False when every engine has failed; then only a restart helps.
        """
        return not self._model.broken

    def drain(self) -> None:
        """Report not ready from now on; requests are still answered until `close`."""
        self._draining = True

    async def close(self) -> None:
        """Refuse new requests, and return when all accepted requests are answered or have timed out."""
        self.drain()
        await self._model.close()

    async def infer(self, request: InferRequest) -> InferResponse:
        """Return the response to a request.

        Raises:
            RefusedError: the request does not fit the model, the queue is full, the request timed out, or the engine
                failed on it.
        """
        check_model(self.name, request.model, request.version)
        names, rows = self._checks.outputs(request), self._checks.rows(request)
        if isinstance(rows, Tokens) and self.head.join:
            raise invalid("ENTITIES are parts of a text, and this request has token ids: send TEXT instead")
        head = self.head if isinstance(rows, Tokens) else self.head.about(rows)

        def make(ran: Ran) -> InferResponse:
            tensors = outputs.tensors(ran.logits, head, names, request.classes)
            passed_on = None if ran.times.stages is None else ran.times.stages.count(SECOND)
            return InferResponse(self.name, VERSION, request.id, tensors, int(ran.cut.sum()), passed_on)

        return await self._answer(rows, make, request.timeout_us)

    async def classify(self, texts: list[Text], write: Callable[[list[Response]], T]) -> T:
        """Run texts, and return the result of `write`, which gets the head's response to each row.

        A response has a label or labels, and the scores of all labels.

        Raises:
            RefusedError: see `infer`.
        """
        head = self.head.about(texts)
        return await self.run(
            texts, lambda ran: write(outputs.classifications(ran.logits, head, ran.cut, ran.times.stages))
        )

    async def run(self, texts: list[Text], make: Callable[[Ran], T]) -> T:
        """Run texts, and return the result of `make`, which turns the logits into a response.

        `make` runs in a thread if the logits are large.

        Raises:
            RefusedError: see `infer`.
        """
        self._checks.check_lengths(texts)
        return await self._answer(texts, make)

    def info(self, examples: list[dict[str, str]]) -> ServiceInfo:
        """Return the facts of the served model: labels, precision, backend, digest and example requests."""
        target = self._model.target
        assert target.bundle is not None
        return {
            "name": self.name,
            "labels": [*self.head.labels] if self.head.names else [],
            "precision": target.precision,
            "backend": target.backend,
            "device": target.device,
            "artefact": target.artefact,
            "bundle_sha256": target.bundle.digest,
            "examples": examples,
        }

    def statistics(self) -> StatisticsResponse:
        """Return the counters as Triton's model statistics."""
        return {"model_stats": [self.counters.statistics(self.name, VERSION)]}

    async def _answer(self, rows: list[Text] | Tokens, make: Callable[[Ran], T], timeout_us: int = 0) -> T:
        """Run rows, and return the response that `make` forms from the result.

        Count the request as a success or a failure.
        """
        clock = self.counters.clock
        start = clock()
        try:
            ran = await self._run(rows, timeout_us)
            before = clock()
            response = await aside(ran.logits.nbytes, partial(make, ran))
            ran.times.output_ns = clock() - before
        except RefusedError as error:
            if error.reason in FAILURES:
                self.counters.count_failure(FAILURES[error.reason], clock() - start)
            raise
        except asyncio.CancelledError:
            self.counters.count_failure("CANCELED", clock() - start)
            raise
        except Exception as error:  # a bug of the service: the log shows it, the client does not see it
            log.exception("a request could not be answered")
            self.counters.count_failure("OTHER", clock() - start)
            raise RefusedError(
                Reason.INTERNAL, "The service failed on this request; the log of the service has the reason"
            ) from error
        self.counters.count_success(len(ran.logits), clock() - start, ran.times)
        request_log.current().times = ran.times
        return response

    async def _run(self, rows: list[Text] | Tokens, timeout_us: int) -> Ran:
        before = self.counters.clock()
        entry = request_log.current()
        entry.rows = len(rows)
        with self._model.batcher.reserve(self._places(rows)):
            tokens, cut = await self._tokenize(rows)
        entry.tokens = int(tokens.lengths.sum())
        tokenized_ns = self.counters.clock() - before
        logits, times = await self._model.run(tokens, timeout_us=timeout_us, arrived_ns=before)
        times.input_ns += tokenized_ns
        return Ran(logits, cut, entry.tokens, times)

    def _places(self, rows: list[Text] | Tokens) -> int:
        """Return how many rows of the queue's capacity to reserve while texts are tokenised.

        Token ids need no reservation. With a cache or a cascade, texts may never need the queue, so they need none
        either, unless they are long. Long texts are tokenised in threads, whose number nothing else limits.
        """
        may_not_queue = self._model.cache or self._model.stages
        if isinstance(rows, Tokens) or (may_not_queue and not _is_long(rows)):
            return 0
        return len(rows)

    async def _tokenize(self, rows: list[Text] | Tokens) -> tuple[Tokens, NDArray[np.bool_]]:
        if isinstance(rows, Tokens):
            return rows, np.zeros(len(rows), bool)
        try:
            return await asyncio.to_thread(self._encode, rows) if _is_long(rows) else self._encode(rows)
        except InputError as error:  # a text has a token that the model lacks
            raise invalid(str(error)) from error

    def _encode(self, texts: list[Text]) -> tuple[Tokens, NDArray[np.bool_]]:
        """Return the tokens of texts, and whether each was cut."""
        tokens = self._model.tokenizer(texts)
        return tokens, self._model.target.resolved.find_cut(texts, tokens.lengths)


def _is_long(texts: list[Text]) -> bool:
    return sum(len(part) for text in texts for part in text) > LONG_CHARACTERS


def _served(backend: str | None) -> str | None:
    """Return `backend` unchanged, after checking that the service can run it.

    Raises:
        UsageError: the service cannot run this backend.
    """
    served = [name for name, one in BACKENDS.items() if one.runs in ("graph", "plan")]
    if backend not in (None, AUTO, *served):
        choices = f"{', '.join(served[:-1])} or {served[-1]}"
        raise UsageError(f"--backend {backend}: the service cannot run this backend. Choose {choices}.")
    return backend


@asynccontextmanager
async def open_service(
    bundle: Path,
    *,
    name: str | None = None,
    backend: str | None = None,
    file: str | None = None,
    device: str = "auto",
    trust: str | None = None,
    threshold: float | None = None,
    cuda_graphs: bool | None = None,
    limits: Limits = DEFAULTS,
    instances: int | None = None,
    cache: int | None = None,
) -> AsyncIterator[Service]:
    """Open a bundle, check its digests, and yield its service when every engine is warm.

    On exit, the service first answers all accepted requests.

    Args:
        bundle: the bundle's folder.
        name: the model's name in requests; the default is the checkpoint's.
        backend: ort, openvino, trt, trt-rtx, ort-trt, or auto for the fastest runtime on a CPU; the default is trt if
            the bundle has a plan for this machine, else ort.
        file: the artefact to serve; the default is the one made for `backend` and `device`.
        device: auto, cpu or cuda:N.
        trust: the digest that the bundle must have (`sha256` in its bundle.json).
        threshold: the score from which a multi-label classifier gives a label; the default is the bundle's.
        cuda_graphs: whether to capture a CUDA graph for each batch shape; the default is that of the bundle's recipe.
        limits: limits on requests, the queue and the waiting time.
        instances: the number of engines that run side by side; the default depends on the machine.
        cache: the number of rows whose logits are cached; None, the default, disables the cache.

    Raises:
        ToolchainError: see errors.py.
    """
    if instances is not None and instances < 1:
        raise UsageError(f"--instances {instances}: no engine would run. Give 1 or more.")
    asked = {"file": file, "device": device, "trust": trust, "threshold": threshold, "cuda_graphs": cuda_graphs}
    target = find_to_run({**asked, "backend": _served(backend)}, bundle, prefer_plan=True)
    assert target.bundle is not None
    name = name or target.bundle.name
    check_name(name)
    counters = Counters()
    async with open_model(target, limits=limits, instances=instances, cache=cache, counters=counters) as model:
        service = Service(name, model, counters)
        try:
            yield service
        finally:
            await service.close()
