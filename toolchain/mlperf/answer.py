"""How the samples that LoadGen asks for are answered: one row from its text, or batches of rows from their tokens."""

from collections.abc import Callable, Iterator

import numpy as np

from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Encode, budget_batches
from toolchain.data.rows import Text
from toolchain.tensors import Infer

Answer = Callable[[Indices], Iterator[Indices]]
"""Rows, int64 [n] -> which of them are answered now, as positions in [n], until all are."""


def one_by_one(infer: Infer, encode: Encode, texts: list[Text]) -> Answer:
    """Return what answers each row alone, from text to logits."""
    first = np.array([0])

    def answer(rows: Indices) -> Iterator[Indices]:
        for position, row in enumerate(rows):
            infer(encode([texts[row]]).batch(first))
            yield np.array([position])

    return answer


def in_batches(infer: Infer, encode: Encode, texts: list[Text], *, max_slots: int) -> Answer:
    """Return what answers rows in length-sorted batches of at most `max_slots` padded positions.

    They are tokenised now, as MLPerf lets a library do while it loads its samples, outside the test.
    """
    tokens = encode(texts)
    lengths = tokens.lengths

    def answer(rows: Indices) -> Iterator[Indices]:
        for positions in budget_batches(lengths[rows], max_slots=max_slots):
            infer(tokens.batch(rows[positions]))
            yield positions

    return answer
