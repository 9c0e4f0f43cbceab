"""The distances, against SciPy and against the heads' own divergences."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from toolchain.data.tasks import Task
from toolchain.distill.losses import DIVERGENCES, relative_distance
from toolchain.heads import HEADS

LOGITS = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))


def test_softened_classes_have_scipys_relative_entropy_at_twice_the_temperature():
    student, teacher = LOGITS
    expected = 4 * entropy(softmax(teacher.numpy() / 2, axis=1), softmax(student.numpy() / 2, axis=1), axis=1).mean()
    assert float(DIVERGENCES["softmax"](student, teacher)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("name", "labels"), [("sequence", "abc"), ("multilabel", "abc")])
def test_the_divergence_of_a_head_is_the_one_by_which_int8_is_chosen(name, labels):
    head = HEADS[name](Task(name="custom", text_columns=("text",), label_column="label"), tuple(labels))
    student, teacher = LOGITS
    found = float(DIVERGENCES[head.probabilities](2 * student, 2 * teacher)) / 4
    assert found == pytest.approx(head.divergence(teacher.numpy(), student.numpy()), rel=1e-5)


def test_numbers_have_their_squared_distance():
    student, teacher = LOGITS
    expected = np.square(np.linalg.norm(student.numpy() - teacher.numpy(), axis=1)).mean()
    assert float(DIVERGENCES[None](student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_hidden_states_of_padded_positions_and_the_scale_of_a_layer_do_not_count():
    states = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    real = torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]
    student, teacher = states
    rows, other = student[real].numpy(), teacher[real].numpy()
    expected = np.square(rows - other).sum() / np.square(other).sum()
    student[~real] = 99.0
    found = relative_distance([student, 1000 * student], [teacher, 1000 * teacher], real)
    assert float(found) == pytest.approx(expected, rel=1e-5)
