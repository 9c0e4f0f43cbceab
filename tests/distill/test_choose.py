"""The choice between two roundings: both begin with the same weights, and the student ends with the nearer one."""

from types import SimpleNamespace

import numpy as np
import pytest

from toolchain.checkpoint.tokenize import Tokens
from toolchain.distill import choose
from toolchain.distill.choose import round_and_choose


class Student:
    """One number as the weights of two graphs, of which the second gives ten times the first's logits."""

    def __init__(self):
        self.made, self.graphs = 1.0, {"first": (self, 1), "second": (self, 10)}

    def weights(self):
        return {"w": np.array(self.made)}

    def put(self, weights):
        self.made = float(weights["w"])


@pytest.mark.parametrize(("errors", "best"), [((2.0, 3.0), "mean"), ((3.0, 2.0), "robust")])
def test_the_student_ends_with_the_weights_of_the_nearer_rounding(monkeypatch, errors, best):
    moves = dict(zip(("mean", "robust"), errors, strict=True))

    def reconstruct(student, teacher, tokens, bias):
        student.made += moves[bias]
        return 5

    def logits_of(made, tokens):
        return np.array(1.0 if made == "teacher" else made[1] * (made[0].made - 1) + 1)

    monkeypatch.setattr(choose, "reconstruct", reconstruct)
    monkeypatch.setattr(choose, "logits_of", logits_of)
    head = SimpleNamespace(distance=lambda one, other: SimpleNamespace(rank=float(abs(one - other))))
    student, tokens = Student(), Tokens({"input_ids": [[1, 2]]}, {"input_ids": 0})
    found = round_and_choose(student, "teacher", head, rounded=tokens, chosen=tokens)
    assert found["distances"] == {name: 11 * move for name, move in moves.items()}
    assert (found["bias"], student.made) == (best, 1 + moves[best])
