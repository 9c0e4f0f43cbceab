"""The served model: a bundle's tokenizer, its engines, and the batcher between them.

`service.py` opens the model, tokenises texts, and sends it the token ids.
"""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from toolchain.base.tensors import Batch, Logits
from toolchain.checkpoint.tokenize import TextEncoder, Tokens
from toolchain.data.probes import probe_texts
from toolchain.engine.plan import is_plan, read_record
from toolchain.errors import InputError
from toolchain.evaluation.stages import find_small, find_stage
from toolchain.evaluation.target import Target
from toolchain.serve.batching.batcher import Batcher
from toolchain.serve.batching.cache import Cache, most_bytes
from toolchain.serve.batching.engines import CPU_MAX_TOKENS, find_engines, on_cpu
from toolchain.serve.batching.queue import bucket_ends, capacity
from toolchain.serve.batching.stages import Inline, Run, Stages
from toolchain.serve.batching.worker import Worker
from toolchain.serve.counters import Counters, Times
from toolchain.serve.limits import Limits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A bundle that is ready to serve: its engines are open and have run warm-up batches."""

    target: Target
    tokenizer: TextEncoder
    batcher: Batcher
    # The limits that the user gave, lowered where the engines support less.
    limits: Limits
    # The cache of logits; None if it is disabled.
    cache: Cache | None
    # The stages of a cascade, and the batcher of the first stage. Both are None if the model is not a cascade. If the
    # first stage is lexical, it has no batcher.
    stages: Stages | None = None
    first: Batcher | None = None

    async def run(self, tokens: Tokens, *, timeout_us: int, arrived_ns: int) -> tuple[Logits, Times]:
        """Return the logits of rows, float32 [rows, *row], and how long each phase took.

        Each row is looked up in the cache, then run by the first stage of a cascade, then by the engines; the first of
        these that has an answer for the row gives its logits.

        Raises:
            RefusedError: see `Batcher.submit`.
        """
        run: Run = partial(self.batcher.submit, timeout_us=timeout_us, arrived_ns=arrived_ns)
        if self.stages:
            run = partial(self.stages.answer, second=run, timeout_us=timeout_us, arrived_ns=arrived_ns)
        return await (self.cache.answer(tokens, run) if self.cache else run(tokens))

    @property
    def broken(self) -> bool:
        """Whether no engine is left for the model or, in a cascade, for one of its two stages."""
        return self.batcher.broken or (self.first is not None and self.first.broken)

    async def close(self) -> None:
        """Refuse new rows, and return when all accepted rows are answered.

        The first stage of a cascade is closed first, because it passes rows on to the second.
        """
        if self.first:
            await self.first.close()
        await self.batcher.close()


@asynccontextmanager
async def open_model(
    target: Target, *, limits: Limits, instances: int | None, cache: int | None, counters: Counters
) -> AsyncIterator[ServedModel]:
    """Open the engines, warm them up, and yield the model; on exit, close the engines.

    `cache` is the number of rows whose logits are cached; None disables the cache.

    Raises:
        ToolchainError: the bundle or the machine lacks something that the engines need; see errors.py.
    """
    async with AsyncExitStack() as opened:
        batcher, lowered = await opened.enter_async_context(_open_batcher(target, limits, instances, counters))
        first: Batcher | None = None
        stages: Stages | None = None
        if stage := find_stage(target):
            if small := find_small(target):
                own = Counters()  # not shown to clients, who see the counters of the second stage
                first, _ = await opened.enter_async_context(_open_batcher(small, limits, instances, own))
            log.info("cascade: the second stage gets rows whose first-stage margin is below %.3f", stage.threshold)
            stages = Stages(first or Inline(opened.enter_context(stage.open({}))), stage.threshold, counters)
        cached = _cache(target, cache, counters)
        yield ServedModel(target, target.resolved.encoder, batcher, lowered, cached, stages, first)


@asynccontextmanager
async def _open_batcher(
    target: Target, limits: Limits, instances: int | None, counters: Counters
) -> AsyncIterator[tuple[Batcher, Limits]]:
    """Open the engines of one model, warm them up, and yield their batcher, and the limits.

    The limits are `limits`, lowered where the engines support less.
    """
    resolved = target.resolved
    columns = resolved.head.texts_per_row
    ends, limits = _shapes(target, limits)
    # Padding would change the logits, so each length has a bucket of its own.
    if equal := resolved.source.facts.equal_length:
        ends = tuple(range(1, ends[-1] + 1))
    # The shortest and the longest length are enough to warm up a CPU, which prepares nothing for a certain length. If
    # each length has a bucket, warming up all of them would take too long.
    lengths = (ends[0], ends[-1]) if on_cpu(target) or equal else ends
    batches = _warm_up(resolved.encoder(probe_texts(columns)), lengths, limits, every_power=resolved.recipe.cuda_graphs)
    row = resolved.head.row
    with find_engines(target, instances) as engines:
        workers = [Worker(open_engine, batches, row=row) for open_engine in engines.side_by_side]
        solo = Worker(engines.solo, batches, row=row) if engines.solo else None
        all_workers = [*workers, solo] if solo else workers
        try:
            for worker in all_workers:
                await worker.opened
            batcher = Batcher(workers, solo=solo, row=row, ends=ends, limits=limits, counters=counters)
            yield batcher, limits
        finally:
            await asyncio.gather(*(worker.close() for worker in all_workers))


def _cache(target: Target, size: int | None, counters: Counters) -> Cache | None:
    """Return a cache for `size` rows, and log the most memory that it may take.

    Return None if `size` is None, which disables the cache.
    """
    if size is None:
        return None
    resolved = target.resolved
    row = resolved.head.row
    most = most_bytes(size, row, resolved.max_length, len(resolved.source.facts.values))
    log.info("cache: up to %d rows in at most %.1f MB", size, most / 1e6)
    return Cache(size, row, counters)


def _shapes(target: Target, limits: Limits) -> tuple[tuple[int, ...], Limits]:
    """Return the ends of the length buckets in tokens, and the limits, lowered where the engine supports less.

    A plan with several optimisation profiles has one bucket for the maximum length of each profile.

    Raises:
        InputError: the longest row that the plan takes is shorter than the longest row of the bundle.
    """
    longest = target.resolved.max_length
    if on_cpu(target):
        lowered = dataclasses.replace(limits, max_tokens=min(limits.max_tokens, CPU_MAX_TOKENS))
        return bucket_ends(longest, per_octave=4), lowered
    if target.file is None or target.bundle is None or not is_plan(target.file):
        return bucket_ends(longest), limits
    plan = target.bundle.path / target.file
    record = read_record(plan)
    profiles = record["profiles"]
    ends = sorted({profile["length"][2] for profile in profiles})
    if ends[-1] < longest:
        raise InputError(
            f"{plan}: the plan takes up to {ends[-1]} tokens per row, but rows of the bundle have up to {longest}. "
            f"Build the plan again with --seq-len 1,{ends[-1]},{longest}, or without --seq-len."
        )
    rows = min(limits.max_batch, min(profile["batch"][2] for profile in profiles))
    if len(ends) == 1:  # a packed plan has no padding, so it needs no buckets
        ends = [longest] if record["layout"] == "packed" else list(bucket_ends(longest))
    return tuple(ends), dataclasses.replace(limits, max_batch=rows)


def _warm_up(tokens: Tokens, ends: tuple[int, ...], limits: Limits, *, every_power: bool) -> list[Batch]:
    """Return warm-up batches of real token ids, smallest first.

    Each length in `ends` has a batch with one row, and a batch with as many rows as fit. With `every_power`, it also
    has batches of 2, 4, 8 rows and so on, because each of these sizes has a CUDA graph of its own.
    """
    flat = {
        name: np.array([value for row in column for value in row], np.int32) for name, column in tokens.columns.items()
    }
    batches = []
    for end in ends:
        most = capacity(end, limits)
        counts = {1 << power for power in range(most.bit_length())} if every_power else {1}
        for rows in sorted({*counts, most}):
            batches.append({name: np.tile(np.resize(values, end), (rows, 1)) for name, values in flat.items()})
    return sorted(batches, key=lambda batch: batch["input_ids"].size)
