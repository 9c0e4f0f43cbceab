"""One bundle as a service: what both wires call. Nothing but RefusedError comes out of `infer` and `classify`."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from toolchain.bundle.names import check_name
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Text
from toolchain.errors import UsageError
from toolchain.runtimes.distance import Logits
from toolchain.serve import metadata
from toolchain.serve import outputs as answers
from toolchain.serve.checks import VERSION, Checks, check_model
from toolchain.serve.classifier import Classifier, find_served, open_classifier
from toolchain.serve.counters import Counters, Times
from toolchain.serve.limits import DEFAULTS, Limits
from toolchain.serve.protocol import InferRequest, InferResponse, Reason, RefusedError

log = logging.getLogger(__name__)

T = TypeVar("T")
Answered = tuple[T, int, Times]
"""An answer, how many rows it is of, and where its time went."""

LONG_CHARACTERS = 4096
"""Texts of more are made tokens of beside the event loop, where others would wait for it."""

FAILURES = {Reason.INTERNAL: "BACKEND", Reason.UNAVAILABLE: "REJECTED"}
"""Triton's reasons of a failure; what is refused for another is the client's affair and counted nowhere."""


class Service:
    """One model, ready to answer."""

    version = VERSION

    def __init__(self, name: str, classifier: Classifier, counters: Counters) -> None:
        """Answer as the model `name`."""
        self.name, self.counters, self.limits = name, counters, classifier.limits
        self.texts = len(classifier.target.resolved.task.text_columns)
        self._classifier, self._draining = classifier, False
        self._labels = classifier.labels
        self._card = metadata.Card(name, classifier.target, tuple(classifier.sizes), len(self._labels))
        self._checks = Checks(
            name,
            self.texts,
            classifier.sizes,
            classifier.target.resolved.max_length,
            classifier.encode.pad_values,
            self.limits,
        )

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: False while draining, and when no engine runs any more."""
        return not self._draining and not self._classifier.batcher.broken

    @property
    def device(self) -> str:
        """Where the engines run: cpu, or cuda:N."""
        return self._classifier.target.device

    @property
    def alive(self) -> bool:
        """Whether starting anew would be no help: False when no engine runs any more."""
        return not self._classifier.batcher.broken

    def drain(self) -> None:
        """Be no longer ready; requests that still come are answered until `close`."""
        self._draining = True

    async def close(self) -> None:
        """Take nothing more, and return when all that was taken is answered, or its time is over."""
        self.drain()
        await self._classifier.batcher.close()

    def check(self, model: str, version: str = "") -> None:
        """Refuse another model or version than this one.

        Raises:
            RefusedError: NOT_FOUND, or INVALID for a version that is no number.
        """
        check_model(self.name, model, version)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer a request.

        Raises:
            RefusedError: it is not what the model takes, there is no room or time for it, or the engine failed on it.
        """
        check_model(self.name, request.model, request.version)
        return await self._counted(self._infer(request))

    async def classify(self, texts: list[Text]) -> list[dict[str, Any]]:
        """Return label, its score and the scores of all labels of each row, for people.

        Raises:
            RefusedError: as of `infer`.
        """
        return await self._counted(self._classify(texts))

    def server_metadata(self) -> dict[str, Any]:
        """Return the server's metadata as the protocol has it."""
        return metadata.server()

    def model_metadata(self) -> dict[str, Any]:
        """Return the model's metadata as the protocol has it."""
        return self._card.metadata()

    def model_config(self) -> dict[str, Any]:
        """Return the model's configuration as Triton writes it in JSON."""
        return self._card.config(self.limits)

    def statistics(self) -> dict[str, Any]:
        """Return what was counted as Triton's model statistics."""
        return {"model_stats": [{"name": self.name, "version": VERSION, **self.counters.statistics()}]}

    async def _infer(self, request: InferRequest) -> Answered[InferResponse]:
        outputs = self._checks.outputs(request)
        logits, times = await self._logits(self._checks.rows(request), request.timeout_us)
        before = self.counters.clock()
        made = answers.tensors(logits, self._labels, outputs, request.classes)
        times.output_ns = self.counters.clock() - before
        return InferResponse(self.name, VERSION, request.id, made), len(logits), times

    async def _classify(self, texts: list[Text]) -> Answered[list[dict[str, Any]]]:
        self._checks.check_texts(texts)
        logits, times = await self._logits(texts, 0)
        before = self.counters.clock()
        made = answers.readable(logits, self._labels)
        times.output_ns = self.counters.clock() - before
        return made, len(logits), times

    async def _logits(self, rows: list[Text] | Tokens, timeout_us: int) -> tuple[Logits, Times]:
        """Return the logits of texts or tokens, and where their time went."""
        before = self.counters.clock()
        batcher = self._classifier.batcher
        if isinstance(rows, Tokens):
            tokens = rows
        else:
            with batcher.coming(len(rows)):
                tokens = await self._encode(rows)
        encoded_ns = self.counters.clock() - before
        logits, times = await batcher.submit(tokens, timeout_us=timeout_us, arrived_ns=before)
        times.input_ns += encoded_ns
        return logits, times

    async def _encode(self, texts: list[Text]) -> Tokens:
        if sum(len(part) for text in texts for part in text) > LONG_CHARACTERS:
            return await asyncio.to_thread(self._classifier.encode, texts)
        return self._classifier.encode(texts)

    async def _counted(self, work: Coroutine[Any, Any, Answered[T]]) -> T:
        """Return what `work` makes, and count how it went."""
        start = self.counters.clock()
        try:
            made, rows, times = await work
        except RefusedError as error:
            if error.reason in FAILURES:
                self.counters.failed(FAILURES[error.reason], self.counters.clock() - start)
            raise
        except asyncio.CancelledError:
            self.counters.failed("CANCELED", self.counters.clock() - start)
            raise
        except Exception as error:  # ours, and not for the client to read
            log.exception("a request could not be answered")
            self.counters.failed("OTHER", self.counters.clock() - start)
            raise RefusedError(Reason.INTERNAL, "The request could not be answered") from error
        self.counters.answered(rows, self.counters.clock() - start, times)
        return made


@asynccontextmanager
async def open_service(
    bundle: Path,
    *,
    name: str | None = None,
    backend: str | None = None,
    file: str | None = None,
    device: str = "auto",
    trust: str | None = None,
    cuda_graphs: bool | None = None,
    limits: Limits = DEFAULTS,
    instances: int | None = None,
) -> AsyncIterator[Service]:
    """Open a bundle, whose digests are checked, and yield its service when every engine is warm.

    The model is called `name`, or as the checkpoint. What runs is `file`, or what was made for `backend` and
    `device`; a backend that is not named is trt where the bundle has a plan for this machine, else ort. When it is
    left, what was taken is answered first.

    Raises:
        ToolchainError: see errors.py.
    """
    if instances is not None and instances < 1:
        raise UsageError(f"--instances {instances}: no engine would run. Give 1 or more.")
    target = find_served(bundle, backend=backend, file=file, device=device, trust=trust, cuda_graphs=cuda_graphs)
    assert target.bundle is not None
    name = name or target.bundle.name
    check_name(name)
    counters = Counters()
    async with open_classifier(target, limits=limits, instances=instances, counters=counters) as classifier:
        service = Service(name, classifier, counters)
        try:
            yield service
        finally:
            await service.close()
