"""Runs a language model's graph in ONNX Runtime: each pass takes new tokens and the cache of the tokens before them.

The graph has the inputs input_ids, attention_mask, position_ids, logits_to_keep and past_key_values.N.key|value, and
the outputs logits and present.N.key|value; export.py makes it. Keys and values stay on the device where the
runtime made them, so a step does not copy them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.generate.generator import Generated, until_end
from toolchain.generate.prompts import PromptBatch
from toolchain.runtimes.ort import cannot_run, import_onnxruntime, open_session

PAST, PRESENT = "past_key_values.", "present."

# Name of a key or value tensor, without the prefix PAST or PRESENT -> an onnxruntime.OrtValue [rows, heads, positions,
# size].
Cache = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """An ONNX Runtime session of a language model's graph on a device, `cpu` or `cuda:N`."""

    session: Any
    model: Path | bytes
    device: str

    def empty(self, rows: int) -> Cache:
        """Return a cache for `rows` rows that has no positions yet."""
        ort = import_onnxruntime()
        made = {}
        for entry in self.session.get_inputs():
            if entry.name.startswith(PAST):
                shape = (rows, entry.shape[1], 0, entry.shape[3])
                made[entry.name.removeprefix(PAST)] = ort.OrtValue.ortvalue_from_numpy(
                    np.zeros(shape, np.float32), *self._place
                )
        return made

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], cache: Cache, keep: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], Cache]:
        """Return the logits of the positions `keep`, float32 [rows, kept, vocabulary], and the extended cache.

        Args:
            ids: new tokens, [rows, new].
            mask: 0 at padded positions and 1 elsewhere, for cached and new positions, [rows, past + new].
            cache: keys and values of the earlier positions.
            keep: indices of the new positions whose logits are returned; the first new position is 0.

        Raises:
            InputError: ONNX Runtime cannot run the graph on these inputs.
        """
        # Padded positions get the position id 0, which has no effect because the mask hides them.
        places = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        binding = self.session.io_binding()
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": places, "logits_to_keep": keep}
        given = {name: np.ascontiguousarray(array) for name, array in given.items()}  # kept while the binding reads it
        for name, array in given.items():
            binding.bind_cpu_input(name, array)
        for name, value in cache.items():
            binding.bind_ortvalue_input(f"{PAST}{name}", value)
        binding.bind_output("logits", "cpu")
        for name in cache:
            binding.bind_output(f"{PRESENT}{name}", *self._place)
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise cannot_run(self.model, error) from error
        logits, *kept = binding.get_outputs()
        return np.asarray(logits.numpy(), np.float32), dict(zip(cache, kept, strict=True))

    @property
    def _place(self) -> tuple[str, int]:
        kind, _, number = self.device.partition(":")
        return kind, int(number or 0)


def open_graph(model: Path | bytes, *, device: str = "cpu", digests: Mapping[str, str] | None = None) -> Session:
    """Open a language model's graph. For arguments and errors, see `open_session`."""
    return Session(open_session(model, device=device, digests=digests), model, device)


def generate(model: Session, ends: set[int], batch: PromptBatch, *, cache: str, new: int, pad: int) -> Generated:
    """Generate up to `new` tokens per row, greedily.

    A row ends with the first of the ids in `ends`, and is filled with the id `pad` after that. `cache` is `dynamic`, or
    `none`, which runs all tokens again for each new token.
    """
    times_s = [time.perf_counter()]
    ids, mask, kept = batch.ids, batch.mask, model.empty(len(batch.ids))
    ended, written = np.zeros(len(ids), bool), list[NDArray[np.int64]]()
    while len(written) < new and not ended.all():
        logits, present = model.run(ids, mask, kept, np.array([ids.shape[1] - 1]))
        token = np.where(ended, pad, logits[:, 0].argmax(axis=-1))
        times_s.append(time.perf_counter())
        written.append(token)
        ended |= np.isin(token, list(ends))
        mask = np.concatenate([mask, np.ones_like(mask[:, :1])], axis=1)
        if cache == "none":
            ids = np.concatenate([ids, token[:, None]], axis=1)
        else:
            ids, kept = token[:, None], present
    first_s, *steps_s = np.diff(times_s).tolist()
    tokens = [until_end(row, ends) for row in np.stack(written, axis=1).tolist()]
    size = None if cache == "none" else cache_bytes(kept)
    return Generated(tokens, [row[-1] in ends for row in tokens], first_s, steps_s, size)


def cache_bytes(cache: Cache) -> int:
    """Return the bytes of the keys and values of one position of one row."""
    found = 0
    for value in cache.values():
        _, heads, _, size = value.shape()
        found += heads * size * np.dtype(np.float32).itemsize
    return found
