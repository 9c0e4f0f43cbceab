"""Rounds the weights of INT8 graphs with each method of correcting biases, and keeps the result nearest to FP32."""

import time

import numpy as np

from toolchain.base.tensors import Array, Logits
from toolchain.checkpoint.tokenize import Tokens, batches_of
from toolchain.distill.fake_quantize import Student
from toolchain.distill.reconstruct import BIASES, ROWS, reconstruct
from toolchain.distill.torch_graph import TorchGraph
from toolchain.heads.contract import Head
from toolchain.records.heal import HealRounding


def round_and_choose(
    student: Student, teacher: TorchGraph, head: Head, *, rounded: Tokens, chosen: Tokens
) -> HealRounding:
    """Round the student's weights to INT8 levels, in place, and return a record of the method that was used.

    The rounding is tried with each method of correcting biases (the keys of BIASES), using the rows `rounded`. The best
    method is kept: the one with the smallest sum of both INT8 graphs' distances from `teacher`, the FP32 graph, on the
    rows `chosen`. No row may be in both `rounded` and `chosen`.

    Raises:
        InputError: PyTorch cannot run a graph on these rows.
    """
    start_s, first = time.monotonic(), student.weights()
    reference = logits_of(teacher, chosen)
    made: dict[str, dict[str, Array]] = {}
    distances: dict[str, float] = {}
    gemms = 0
    for name in BIASES:
        student.put(first)
        gemms = reconstruct(student, teacher, rounded, name)
        made[name] = student.weights()
        ranks = [head.distance(reference, logits_of(one, chosen)).rank for one in student.graphs.values()]
        distances[name] = sum(ranks)
    bias = min(distances, key=lambda name: distances[name])
    student.put(made[bias])
    return {
        "gemms": gemms,
        "rows": len(rounded),
        "tokens": int(rounded.lengths.sum()),
        "bias": bias,
        "distances": distances,
        "chosen_on": len(chosen),
        "seconds": time.monotonic() - start_s,
    }


def logits_of(made: TorchGraph, tokens: Tokens) -> Logits:
    """Return the logits of all rows, computed by PyTorch, in the order of `tokens`.

    Raises:
        InputError: see `TorchGraph.run`.
    """
    import torch

    order = list(batches_of(tokens, ROWS))
    with torch.no_grad():
        found = [
            made.logits({name: torch.from_numpy(one).long() for name, one in tokens.batch(rows).items()}).numpy()
            for rows in order
        ]
    return np.concatenate(found)[np.argsort(np.concatenate(order))]
