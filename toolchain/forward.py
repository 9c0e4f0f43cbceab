"""One pass over rows, in batches without waste."""

import time
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain.distance import Logits
from toolchain.graph import serialised
from toolchain.runtimes.ort import open_ort
from toolchain.tensors import Infer
from toolchain.tokens import Tokens, budget_batches

DEFAULT_SLOTS = 1024
"""Padded positions a batch where no trial has chosen another number."""


@dataclass(frozen=True)
class Run:
    """What one pass over the rows gave and took: `slots` padded positions, `pairs` of them in the same row."""

    logits: Logits
    runtime_s: float
    slots: int
    pairs: int
    batches: int


def run(infer: Infer, tokens: Tokens, *, max_slots: int = DEFAULT_SLOTS) -> Run:
    """Infer every row in length-sorted batches; logits are float32 [rows, classes], in row order."""
    parts, order, runtime_s, slots, pairs = [], [], 0.0, 0, 0
    for rows in budget_batches(tokens.lengths, max_slots=max_slots):
        batch = tokens.batch(rows)
        start = time.perf_counter()
        parts.append(infer(batch))
        runtime_s += time.perf_counter() - start
        order.append(rows)
        slots += batch["input_ids"].size
        pairs += batch["input_ids"].size * batch["input_ids"].shape[1]
    found = np.concatenate(parts)
    logits = np.empty_like(found)
    logits[np.concatenate(order)] = found
    return Run(logits, runtime_s, slots, pairs, len(order))


def logits_of(model: ir.Model, tokens: Tokens) -> Logits:
    """Return the logits that ONNX Runtime on the CPU gives for a graph in memory."""
    with open_ort(serialised(model), device="cpu") as infer:
        return run(infer, tokens).logits
