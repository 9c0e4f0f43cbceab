"""Distances against scipy."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from tests.head_of import head_of


def test_classes_against_scipy():
    one, other = np.random.default_rng(0).normal(size=(2, 50, 3)).astype(np.float32)
    found = head_of("a", "b", "c").distance(one, other)
    assert found.kl == pytest.approx(entropy(softmax(one, axis=1), softmax(other, axis=1), axis=1).mean(), rel=1e-5)
    assert found.rms == pytest.approx(np.sqrt(((one - other) ** 2).mean()), rel=1e-6)
    assert found.changed == (one.argmax(axis=1) != other.argmax(axis=1)).mean()
    assert found.rank == pytest.approx((found.kl * found.rms**2) ** 0.25)


def test_a_regression_ranks_by_difference():
    found = head_of("a").distance(np.zeros((4, 1), np.float32), np.full((4, 1), 0.5, np.float32))
    assert (found.kl, found.rms, found.changed, found.rank) == (None, 0.5, None, 0.5)


@pytest.mark.parametrize("labels", ["a", "ab"])
def test_logits_that_are_not_finite_are_far(labels):
    broken = np.full((2, len(labels)), np.nan, np.float32)
    assert head_of(*labels).distance(np.zeros((2, len(labels)), np.float32), broken).rank > 1e6


def test_huge_logits_do_not_overflow():
    assert head_of("a", "b").distance(np.array([[1e4, 0]], np.float32), np.array([[1e4, 1]], np.float32)).kl == 0
