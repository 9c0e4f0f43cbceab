"""Compares a language model's graph with PyTorch: on prompts, on decode steps, and on batches padded on the left."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import GateError
from toolchain.generate.decode_ort import Session
from toolchain.runtimes.parity import Parity

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Number of batches on which a build compares the graph with PyTorch, most rows of a batch, and longest prompt in
# tokens.
BATCHES, MOST_ROWS, LONGEST = 4, 5, 24

# New tokens after a prompt. They are run in passes of 1, 2, ..., CHUNK tokens.
NEW, CHUNK = 6, 3

Logits = NDArray[np.float32]


def compare(model: "PreTrainedModel", graph: Session, *, batches: int = BATCHES, seed: int = 0) -> Parity:
    """Return the differences between the logits of a graph and of the model in PyTorch, over random batches.

    PyTorch runs each batch in one pass without a cache. The graph runs the prompt first, and then the other tokens with
    the cache, in passes of one or more tokens. Padded positions are not compared. The differences
    and the largest logit are computed from centred logits (see `centred`).
    """
    differences, agreed, largest, finite = [], [], 0.0, True
    for ids, mask, prompt in _batches(model, batches, np.random.default_rng(seed)):
        real = mask.astype(bool)
        expected, found = centred(_expected(model, ids, mask)[real]), centred(_found(graph, ids, mask, prompt)[real])
        finite = finite and bool(np.isfinite(found).all() and np.isfinite(expected).all())
        largest = max(largest, float(np.abs(expected).max()))
        differences.append(np.abs(found - expected).ravel())
        agreed.append(found.argmax(axis=-1) == expected.argmax(axis=-1))
    every, agreement = np.concatenate(differences), np.concatenate(agreed)
    rms = float(np.sqrt(np.square(every).mean()))
    return Parity(len(agreement), float(every.max()), rms, float(agreement.mean()), largest, finite)


def centred(logits: Logits) -> Logits:
    """Return the logits minus their mean over the vocabulary (the last axis), which a softmax ignores."""
    made: Logits = logits - logits.mean(axis=-1, keepdims=True)
    return made


def require_finite(graph: Session, *, where: str) -> None:
    """Refuse a graph that gives NaN or infinite logits for a short prompt or for a decode step after it.

    Raises:
        GateError: it is refused. The message names the graph as `where`.
    """
    prompt = np.arange(NEW)[None]
    first, cache = graph.run(prompt, np.ones_like(prompt), graph.empty(1), np.arange(NEW))
    later, _ = graph.run(prompt[:, :1], np.ones((1, NEW + 1), np.int64), cache, np.arange(1))
    if not (np.isfinite(first).all() and np.isfinite(later).all()):
        raise GateError(f"{where} computes NaN or infinity. Build with --precision fp32.")


def _batches(
    model: "PreTrainedModel", count: int, draw: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], int]]:
    """Yield random batches: token ids and mask, both [rows, length], and how many positions are the prompt.

    At least one row of each batch has no padding.
    """
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or LONGEST + NEW
    for _ in range(count):
        rows, prompt = int(draw.integers(1, MOST_ROWS + 1)), int(draw.integers(1, min(LONGEST, positions - NEW) + 1))
        ids = draw.integers(0, config.vocab_size, (rows, prompt + NEW))
        padded = draw.integers(0, prompt, rows)
        padded[draw.integers(rows)] = 0
        yield ids, (np.arange(prompt + NEW) >= padded[:, None]).astype(np.int64), prompt


def _expected(model: "PreTrainedModel", ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Logits:
    import torch

    places = np.maximum(mask.cumsum(axis=1) - 1, 0)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    with torch.inference_mode():
        made = model(**{name: torch.from_numpy(array) for name, array in given.items()}, use_cache=False)
    logits: Logits = made.logits.float().numpy()
    return logits


def _found(graph: Session, ids: NDArray[np.int64], mask: NDArray[np.int64], prompt: int) -> Logits:
    cache, start, parts = graph.empty(len(ids)), 0, []
    sizes = [prompt, *range(1, CHUNK + 1)]
    assert sum(sizes[1:]) == NEW
    for size in sizes:
        end = start + size
        logits, cache = graph.run(ids[:, start:end], mask[:, :end], cache, np.arange(size))
        parts.append(logits)
        start = end
    return np.concatenate(parts, axis=1)
