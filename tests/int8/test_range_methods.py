"""Histograms against numpy, methods against textbook loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as kl_divergence

from toolchain.int8.range_methods import BINS, FIRST_CANDIDATE, METHODS, Histogram, _divergences


def histogram_of(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.add(np.asarray(batch, np.float32))
    return histogram


def textbook_divergence(counts, kept):
    """The algorithm as its authors show it: build P and Q bin by bin."""
    p = counts[:kept].copy()
    p[-1] += counts[kept:].sum()
    q = np.zeros(kept)
    level = np.arange(kept) * FIRST_CANDIDATE // kept
    for index in range(FIRST_CANDIDATE):
        inside = (level == index) & (counts[:kept] > 0)
        if inside.any():
            q[inside] = counts[:kept][inside].mean()
    return kl_divergence(p, q)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20), st.integers(1, 4))
def test_divergences_are_the_textbooks(seed, scale, zero_share):
    generator = np.random.default_rng(seed)
    counts = np.histogram(np.abs(generator.standard_t(3, 20_000) * scale), BINS)[0].astype(float)
    counts[:: 5 * zero_share] = 0
    kept = np.array([128, 129, 200, 511, 1000, 2047, 2048])
    expected = [textbook_divergence(counts, int(count)) for count in kept]
    np.testing.assert_allclose(_divergences(counts, kept), expected, rtol=1e-6, atol=1e-9)


def test_entropy_clips_an_outlier_and_keeps_a_uniform():
    generator = np.random.default_rng(0)
    normal = generator.normal(size=200_000)
    assert 3 < histogram_of(np.append(normal, 30)).range("entropy").amax < 8
    assert histogram_of(generator.uniform(-1, 1, 200_000)).range("entropy").amax > 0.95


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), min_size=1, max_size=6))
def test_nothing_is_lost_as_bins_grow(batches):
    histogram = histogram_of(*batches)
    flat = np.abs(np.concatenate([np.asarray(batch, np.float32) for batch in batches]))
    assert histogram.counts.sum() == flat.size
    assert histogram.amax == flat.max()
    assert len(histogram.counts) == BINS


def test_growing_bins_are_those_of_numpy():
    generator = np.random.default_rng(0)
    batches = [generator.normal(size=10_000) * scale for scale in (1, 3, 20)]
    histogram = histogram_of(*batches)
    edges = np.arange(BINS + 1) * histogram.width
    expected = np.histogram(np.abs(np.concatenate(batches).astype(np.float32)), edges)[0]
    # A value on an edge may round to either side: at most a few of 30,000.
    assert np.abs(histogram.counts - expected).sum() <= 6


def test_minmax_is_exact_and_percentile_numpys():
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    histogram = histogram_of(values)
    assert histogram.range("minmax").amax == np.abs(values).max()
    assert histogram.range("percentile").amax == pytest.approx(
        np.percentile(np.abs(values), 99.99), abs=2 * histogram.width
    )


def test_mse_is_the_best_of_a_grid():
    values = np.random.default_rng(0).standard_t(4, 50_000).astype(np.float32)
    chosen = histogram_of(values).range("mse").amax

    def error(amax):
        scale = amax / 127
        return ((np.clip(np.rint(values / scale), -127, 127) * scale - values) ** 2).mean()

    grid = np.linspace(0.05, 1, 60) * np.abs(values).max()
    assert error(chosen) <= 1.02 * min(map(error, grid))


@pytest.mark.parametrize("method", METHODS)
def test_signs_and_degenerate_tensors(method):
    positive = histogram_of(np.linspace(0, 4, 5000)).range(method)
    assert positive.low == 0
    assert positive.high == pytest.approx(positive.amax)
    assert histogram_of(np.zeros(10)).range(method).amax == 1
    assert histogram_of([3.0]).range(method).amax == pytest.approx(3, rel=1e-3)


def test_infinity_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        histogram_of([1.0, np.inf])


def test_ends_never_cross_even_for_a_constant():
    found = histogram_of(np.full(100, 3.0)).range("mse")
    assert found.low <= found.high <= found.amax
