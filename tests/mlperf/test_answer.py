"""Every row that is asked for is answered once, from the inputs that are its own."""

import numpy as np
import pytest

from toolchain.checkpoint.tokenize import Tokens
from toolchain.mlperf.answer import in_batches, one_by_one

TEXTS = [(" ".join("x" * (row + 1)),) for row in range(6)]  # row n has n + 1 tokens


class Model:
    """Remembers the rows of each batch, known by their lengths, and the shape of it."""

    def __init__(self):
        self.rows, self.shapes = [], []

    def encode(self, texts):
        ids = [[1] * len(text[0].split()) for text in texts]
        return Tokens({"input_ids": ids, "attention_mask": ids}, {"input_ids": 0, "attention_mask": 0})

    def infer(self, batch):
        self.rows.append((batch["attention_mask"].sum(axis=1) - 1).tolist())
        self.shapes.append(batch["input_ids"].shape)
        return np.zeros((len(batch["input_ids"]), 2), np.float32)


@pytest.fixture
def model():
    return Model()


def test_one_by_one_keeps_the_order(model):
    answer = one_by_one(model.infer, model.encode, TEXTS)
    assert np.concatenate(list(answer(np.array([4, 0, 4])))).tolist() == [0, 1, 2]
    assert model.rows == [[4], [0], [4]]
    assert model.shapes == [(1, 5), (1, 1), (1, 5)]


def test_batches_are_sorted_by_length_and_within_the_budget(model):
    answer = in_batches(model.infer, model.encode, TEXTS, max_slots=10)
    asked = np.array([0, 5, 1, 4, 5, 2, 3, 0])
    positions = np.concatenate(list(answer(asked)))
    assert sorted(positions.tolist()) == list(range(8))
    assert [row for rows in model.rows for row in rows] == asked[positions].tolist() == sorted(asked, reverse=True)
    assert all(rows * length <= 10 for rows, length in model.shapes)


def test_a_row_is_answered_when_its_batch_is_done_and_not_later(model):
    answer = in_batches(model.infer, model.encode, TEXTS, max_slots=6)(np.arange(6))
    next(answer)
    assert len(model.rows) == 1
