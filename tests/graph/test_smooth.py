"""Smoothing changes the logits of a float graph by rounding only, and makes outliers smaller."""

import numpy as np
import pytest

from toolchain import graph
from toolchain.errors import InputError
from toolchain.graph.gemms import linear_layers
from toolchain.graph.smooth import MAX_EXPONENT, exponents, folds, smooth
from toolchain.int8.calibrate import channel_amax, collect
from toolchain.runtimes.batched import logits_of
from toolchain.runtimes.ort import open_session

KINDS = ["distilbert", "bert", "roberta"]


@pytest.fixture
def smoothed(exported, tokens_of):
    def make(kind, alpha):
        model = graph.load(exported[kind])
        chosen = exponents(model, channel_amax(model, tokens_of(kind, 20)), alpha)
        muls = smooth(model, chosen)
        graph.tidy(model)
        return model, chosen, muls

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_logits_change_by_rounding_only(exported, tokens_of, smoothed, kind, alpha):
    model, chosen, muls = smoothed(kind, alpha)
    assert muls == len(chosen) == 6  # embeddings, attention, feed-forward, next attention: four norms, two activations
    assert any(any(powers) for powers in chosen.values())
    tokens = tokens_of(kind, 12)
    np.testing.assert_allclose(logits_of(model, tokens), logits_of(graph.load(exported[kind]), tokens), atol=2e-5)


def test_factors_equal_the_papers_within_a_sixteenth_of_an_octave(exported, tokens_of):
    model = graph.load(exported["bert"])
    amax = channel_amax(model, tokens_of("bert", 20))
    chosen = exponents(model, amax, 0.7)
    for fold in folds(model):
        alpha = 0.7 if fold.norm else 1.0
        weight = np.abs(np.concatenate(fold.weights, axis=1)).max(axis=1)
        exact = amax[fold.name] ** alpha / weight ** (1 - alpha)
        octaves = np.log2(exact) - np.log2(exact).mean()
        assert (np.abs(np.array(chosen[fold.name]) / 8 - octaves) <= 1 / 16 + 1e-5).all()


def test_channel_amax_equals_numpys(exported, tokens_of):

    tokens = tokens_of("distilbert", 12)
    model = graph.load(exported["distilbert"])
    fold = folds(model)[-1]
    session = open_session(graph.with_outputs(model, [fold.value.name]))
    rows = [session.run(None, tokens.batch(np.array([row])))[0][0] for row in range(12)]
    found = channel_amax(model, tokens)[fold.name]
    np.testing.assert_allclose(found, np.abs(np.concatenate(rows)).max(axis=0), rtol=1e-5)


def test_an_outlier_channel_shrinks(exported, tokens_of):
    model = graph.load(exported["distilbert"])
    norm = next(graph.nodes(model, "LayerNormalization"))
    scale = graph.constant(norm.inputs[1]).copy()
    scale[3] *= 50
    norm.replace_input_with(1, graph.add_initializer(model, "outlier", scale))
    tokens = tokens_of("distilbert", 20)

    def spread():
        histogram = collect(model, tokens)[norm.outputs[0].name]
        return histogram.amax / histogram.range("percentile-90").amax

    before = spread()
    smooth(model, exponents(model, channel_amax(model, tokens), 0.9))
    assert spread() < before / 5


def test_layers_that_share_weights_are_not_smoothed(exported):
    model = graph.load(exported["distilbert"])
    first, second = [node for node in linear_layers(model) if node.name.endswith("lin1")]
    second.replace_input_with(1, first.inputs[1])
    left_out = {"distilbert.transformer.layer.0.sa_layer_norm", "distilbert.transformer.layer.1.sa_layer_norm"}
    assert left_out.isdisjoint(fold.name for fold in folds(model))


@pytest.mark.parametrize("change", [{"nothing": [1]}, {"distilbert.embeddings.LayerNorm": [1, 2]}])
def test_smoothing_of_another_graph_is_refused(exported, change):
    with pytest.raises(InputError, match="which this graph lacks"):
        smooth(graph.load(exported["distilbert"]), change)


def test_dead_and_extreme_channels_stay_within_bounds(exported, tokens_of):
    model = graph.load(exported["distilbert"])
    amax = channel_amax(model, tokens_of("distilbert", 5))
    name = folds(model)[0].name
    amax[name][:2] = 0, 1e30
    powers = exponents(model, amax, 1.0)[name]
    assert powers[0] == 0
    assert max(map(abs, powers)) <= MAX_EXPONENT
