"""A bundle's classifier behind one batcher: texts or token ids in, logits out; a worker for each engine context."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.checkpoint.tokenize import Tokens
from toolchain.engine.plan import is_plan, read_record
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.target import Target, find_target
from toolchain.runtimes.parity import probe_texts
from toolchain.serve.batching.batcher import Batcher
from toolchain.serve.batching.engines import CPU_TOKENS, find_engines, on_cpu
from toolchain.serve.batching.queue import bucket_ends, capacity
from toolchain.serve.batching.worker import Worker
from toolchain.serve.counters import Counters
from toolchain.serve.limits import Limits
from toolchain.serve.tokenizer import Encoder
from toolchain.tensors import Batch


@dataclass(frozen=True)
class Classifier:
    """What the service asks of a bundle that is ready to run."""

    target: Target
    encode: Encoder
    batcher: Batcher
    limits: Limits
    """What was asked, and not more than the engine takes."""

    @property
    def labels(self) -> list[str]:
        """The names of the classes, or of the one number, in the order of the logits."""
        return self.target.resolved.source.labels

    @property
    def sizes(self) -> dict[str, int]:
        """Token input -> number of its values, so that every id is below it."""
        config = self.target.resolved.source.config
        known = {
            "input_ids": int(config["vocab_size"]),
            "attention_mask": 2,
            "token_type_ids": int(config.get("type_vocab_size", 2)),
        }
        return {name: known[name] for name in self.target.resolved.source.inputs}


def find_served(bundle: Path, *, backend: str | None, **changes: Any) -> Target:
    """Return what of a bundle is served: its plan for this machine where it has one, or a graph on ONNX Runtime.

    Raises:
        ToolchainError: see errors.py.
    """
    if backend not in (None, "ort", "trt", "ort-trt"):
        raise UsageError(f"--backend {backend}: cannot be served. Choose ort, trt or ort-trt.")
    return find_target({**changes, "backend": backend}, bundle, prefer_plan=True)


@asynccontextmanager
async def open_classifier(
    target: Target, *, limits: Limits, instances: int | None, counters: Counters
) -> AsyncIterator[Classifier]:
    """Open engines, warm them up, and yield the classifier; what runs is finished when it is left.

    Raises:
        ToolchainError: the bundle or the machine lacks something; see errors.py.
    """
    resolved = target.resolved
    columns = len(resolved.task.text_columns)
    ends, limits = _shapes(target, limits)
    encoder = Encoder(
        resolved.tokenizer, columns=columns, max_length=resolved.max_length, inputs=resolved.source.inputs
    )
    shapes = (ends[0], ends[-1]) if on_cpu(target) else ends  # nothing is made for those between
    batches = _warm_up(encoder(probe_texts(columns)), shapes, limits, every=resolved.recipe.cuda_graphs)
    classes = len(resolved.source.labels)
    with find_engines(target, instances) as engines:
        workers = [Worker(opened, batches, classes=classes) for opened in engines.side_by_side]
        solo = Worker(engines.solo, batches, classes=classes) if engines.solo else None
        everyone = [*workers, solo] if solo else workers
        try:
            for worker in everyone:
                await worker.opened()
            batcher = Batcher(list(workers), solo=solo, classes=classes, ends=ends, limits=limits, counters=counters)
            yield Classifier(target, encoder, batcher, limits)
        finally:
            await asyncio.gather(*(worker.close() for worker in everyone))


def _shapes(target: Target, limits: Limits) -> tuple[tuple[int, ...], Limits]:
    """Return the length buckets, which are a plan's own where it has several, and the limits that a plan keeps to.

    Raises:
        InputError: the plan takes shorter rows than the bundle's.
    """
    longest = target.resolved.max_length
    if on_cpu(target):
        return bucket_ends(longest, per_octave=4), dataclasses.replace(
            limits, max_tokens=min(limits.max_tokens, CPU_TOKENS)
        )
    if target.file is None or target.bundle is None or not is_plan(target.file):
        return bucket_ends(longest), limits
    plan = target.bundle.path / target.file
    record = read_record(plan)
    profiles = record["profiles"]
    ends = sorted({profile["length"][2] for profile in profiles})
    if ends[-1] < longest:
        raise InputError(
            f"{plan}: takes {ends[-1]} tokens a row, and the bundle's texts have up to {longest}. "
            f"Build it again with --seq-len 1,{ends[-1]},{longest}, or without."
        )
    rows = min(limits.max_batch, min(profile["batch"][2] for profile in profiles))
    if len(ends) == 1:  # a plan without padding has nothing to group for
        ends = [longest] if record["layout"] == "packed" else list(bucket_ends(longest))
    return tuple(ends), dataclasses.replace(limits, max_batch=rows)


def _warm_up(tokens: Tokens, ends: tuple[int, ...], limits: Limits, *, every: bool) -> list[Batch]:
    """Return batches of real ids, smallest first: one row and as many as run together, for each length bucket.

    With `every` also the powers of two between, each of which is a CUDA graph of its own.
    """
    flat = {
        name: np.array([value for row in column for value in row], np.int32) for name, column in tokens.columns.items()
    }
    made = []
    for end in ends:
        most = capacity(end, limits)
        between = {1 << power for power in range(most.bit_length())} if every else {1}
        for rows in sorted({*between, most}):
            made.append({name: np.tile(np.resize(values, end), (rows, 1)) for name, values in flat.items()})
    return sorted(made, key=lambda batch: batch["input_ids"].size)
