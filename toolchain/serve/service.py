"""The service of one bundle, which both HTTP and gRPC call.

`infer` and `classify` raise no other exception than RefusedError.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits
from toolchain.bundle.names import check_name
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Text
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.example import example_rows
from toolchain.records.serving import (
    ModelConfig,
    ModelMetadata,
    Response,
    ServerMetadata,
    ServiceInfo,
    StatisticsResponse,
)
from toolchain.serve import metadata, outputs, request_log
from toolchain.serve.aside import aside
from toolchain.serve.batching.stages import SECOND
from toolchain.serve.checks import VERSION, Checks, check_model
from toolchain.serve.counters import Counters, Times
from toolchain.serve.http.openapi import Shown
from toolchain.serve.limits import DEFAULTS, Limits
from toolchain.serve.model import ServedModel, find_served, open_model
from toolchain.serve.protocol import InferRequest, InferResponse, Reason, RefusedError, invalid

log = logging.getLogger(__name__)

T = TypeVar("T")
# A response, its number of rows, and where its time went.
Timed = tuple[T, int, Times]


class Ran(NamedTuple):
    """Rows that the model ran: their logits, whether each text was cut, bool [rows], and the number of tokens."""

    logits: Logits
    cut: NDArray[np.bool_]
    tokens: int


# Rows that the page offers to try.
EXAMPLES = 4

# Longer texts are tokenised in a thread, because they would block the event loop.
LONG_CHARACTERS = 4096

# Reasons that count as failures, by Triton's names. Other refusals are the client's mistakes and are not counted.
FAILURES = {Reason.INTERNAL: "BACKEND", Reason.UNAVAILABLE: "REJECTED"}


class Service:
    """One model that answers requests."""

    version = VERSION

    def __init__(self, name: str, model: ServedModel, counters: Counters) -> None:
        """Serve a model under a name."""
        resolved = model.target.resolved
        self.name, self.counters, self.limits = name, counters, model.limits
        self.texts_per_row, self.device = resolved.head.texts_per_row, model.target.device
        self._model, self._draining = model, False
        self.head = resolved.head
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
        """What the pages show: the model's name, its labels, and rows of its own data."""
        rows = example_rows(self._model.target.resolved, EXAMPLES)
        return Shown(self.name, self.head.example, rows, self.head.routes)

    @property
    def ready(self) -> bool:
        """Whether load balancers should send requests: False while draining, and when every engine has failed."""
        return not self._draining and self.alive

    @property
    def alive(self) -> bool:
        """False when every engine has failed, so that only a restart helps."""
        return not self._model.broken

    def drain(self) -> None:
        """Report not ready from now on; requests are still answered until `close`."""
        self._draining = True

    async def close(self) -> None:
        """Refuse new requests, and return when all accepted ones are answered or their time is over."""
        self.drain()
        await self._model.close()

    def check(self, model: str, version: str = "") -> None:
        """Refuse another model or version than the served one.

        Raises:
            RefusedError: unknown name or version (NOT_FOUND), or a version that is not a number (INVALID).
        """
        check_model(self.name, model, version)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Return the response to a request.

        Raises:
            RefusedError: the request does not fit the model, the queue is full, the request timed out, or the engine
                failed on it.
        """
        check_model(self.name, request.model, request.version)
        return await self._counted(self._infer(request))

    async def classify(self, texts: list[Text]) -> list[Response]:
        """Return the head's response to each row: its label or labels, and the scores of all.

        Raises:
            RefusedError: as `infer`.
        """
        return await self._counted(self._classify(texts))

    async def run(self, texts: list[Text]) -> Ran:
        """Return what the model puts out for texts, for a response in the form of another server.

        Raises:
            RefusedError: as `infer`.
        """
        return await self._counted(self._run(texts))

    def info(self, examples: list[dict[str, str]]) -> ServiceInfo:
        """Return what is served, with examples of requests of `POST /classify`."""
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

    def server_metadata(self) -> ServerMetadata:
        """Return the protocol's metadata of the server."""
        return metadata.server_metadata()

    def model_metadata(self) -> ModelMetadata:
        """Return the protocol's metadata of the model."""
        return metadata.model_metadata(self.name, self._model.target)

    def model_config(self) -> ModelConfig:
        """Return the model's configuration in Triton's JSON form."""
        return metadata.model_config(self.name, self._model.target, self.limits)

    def statistics(self) -> StatisticsResponse:
        """Return the counters as Triton's model statistics."""
        return {"model_stats": [self.counters.statistics(self.name, VERSION)]}

    async def _infer(self, request: InferRequest) -> Timed[InferResponse]:
        names = self._checks.outputs(request)
        rows = self._checks.rows(request)
        if isinstance(rows, Tokens) and self.head.join:
            raise invalid("token ids have no places in a text: send TEXT to get ENTITIES")
        (logits, cut, _), times = await self._logits(rows, request.timeout_us)
        before = self.counters.clock()
        head = self.head if isinstance(rows, Tokens) else self.head.about(rows)
        tensors = await aside(logits.nbytes, partial(outputs.tensors, logits, head, names, request.classes))
        times.output_ns = self.counters.clock() - before
        passed_on = None if times.stages is None else times.stages.count(SECOND)
        made = InferResponse(self.name, VERSION, request.id, tensors, int(cut.sum()), passed_on)
        return made, len(logits), times

    async def _classify(self, texts: list[Text]) -> Timed[list[Response]]:
        ran, rows, times = await self._run(texts)
        before = self.counters.clock()

        def describe() -> list[Response]:
            return outputs.classifications(ran.logits, self.head.about(texts), ran.cut, times.stages)

        found = await aside(ran.logits.nbytes, describe)
        times.output_ns = self.counters.clock() - before
        return found, rows, times

    async def _run(self, texts: list[Text]) -> Timed[Ran]:
        self._checks.check_lengths(texts)
        ran, times = await self._logits(texts, 0)
        return ran, len(texts), times

    async def _logits(self, rows: list[Text] | Tokens, timeout_us: int) -> tuple[Ran, Times]:
        """Return what the model puts out for texts or tokens, and where their time went."""
        before = self.counters.clock()
        batcher, entry = self._model.batcher, request_log.current()
        entry.rows = len(rows)
        with batcher.reserve(self._places(rows)):
            tokens, cut = await self._tokenize(rows)
        entry.tokens = int(tokens.lengths.sum())
        tokenized_ns = self.counters.clock() - before
        logits, times = await self._model.run(tokens, timeout_us=timeout_us, arrived_ns=before)
        times.input_ns += tokenized_ns
        return Ran(logits, cut, entry.tokens), times

    def _places(self, rows: list[Text] | Tokens) -> int:
        """Return the capacity of the queue that rows need until they are tokens.

        Rows that may need no engine need none, unless a thread tokenises them: threads have no other bound.
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
        except InputError as error:  # a token that the model lacks
            raise invalid(str(error)) from error

    def _encode(self, texts: list[Text]) -> tuple[Tokens, NDArray[np.bool_]]:
        """Return the tokens of texts, and whether each was cut."""
        tokens = self._model.tokenizer(texts)
        return tokens, self._model.target.resolved.find_cut(texts, tokens.lengths)

    async def _counted(self, work: Coroutine[Any, Any, Timed[T]]) -> T:
        """Return the response that `work` gives, and count the success or the failure."""
        start = self.counters.clock()
        try:
            response, rows, times = await work
        except RefusedError as error:
            if error.reason in FAILURES:
                self.counters.count_failure(FAILURES[error.reason], self.counters.clock() - start)
            raise
        except asyncio.CancelledError:
            self.counters.count_failure("CANCELED", self.counters.clock() - start)
            raise
        except Exception as error:  # a bug of the service: the log shows it, the client does not see it
            log.exception("a request could not be answered")
            self.counters.count_failure("OTHER", self.counters.clock() - start)
            raise RefusedError(Reason.INTERNAL, "The request could not be answered") from error
        self.counters.count_success(rows, self.counters.clock() - start, times)
        request_log.current().times = times
        return response


def _is_long(texts: list[Text]) -> bool:
    return sum(len(part) for text in texts for part in text) > LONG_CHARACTERS


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
        trust: the digest that the bundle must have.
        threshold: the score from which a row has a label, of a model that gives several; the default is the bundle's.
        cuda_graphs: whether to record a CUDA graph for each shape; the default is the bundle's recipe.
        limits: bounds of requests, queue and waiting time.
        instances: engines side by side; the default suits the machine.
        cache: rows whose logits are kept, to answer the same rows again; by default none are.

    Raises:
        ToolchainError: see errors.py.
    """
    if instances is not None and instances < 1:
        raise UsageError(f"--instances {instances}: no engine would run. Give 1 or more.")
    asked = {"file": file, "device": device, "trust": trust, "threshold": threshold, "cuda_graphs": cuda_graphs}
    target = find_served(bundle, backend=backend, **asked)
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
