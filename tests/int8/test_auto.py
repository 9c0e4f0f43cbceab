"""`auto` chooses the combination that is nearest to FP32."""

import numpy as np
import pytest

from tests.head_of import head_of
from toolchain import graph
from toolchain.graph.first_token import first_token
from toolchain.graph.smooth import exponents, smooth
from toolchain.int8.auto import ALPHAS, CANDIDATES, choose, smoothed
from toolchain.int8.calibrate import calibrate, channel_amax
from toolchain.int8.holdout import choose_holdout
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.runtimes.batched import logits_of

HEAD = head_of("no", "yes")


@pytest.fixture(scope="module")
def setting(exported, tokens_of):
    model = graph.load(exported["distilbert"])
    return model, tokens_of("distilbert", 30), choose_holdout(model, tokens_of("distilbert", 120), head=HEAD, seed=0)


@pytest.fixture(scope="module")
def choice(setting):
    before = graph.serialised(setting[0])
    chosen = choose(*setting)
    assert graph.serialised(setting[0]) == before
    return chosen


def test_every_combination_is_tried_and_the_nearest_chosen(choice):
    tried = {(trial.alpha, trial.method) for trial in choice.trials}
    assert tried == {(alpha, method) for alpha in ALPHAS for method in CANDIDATES}
    assert choice.best.distance.rank == min(trial.distance.rank for trial in choice.trials)


def test_a_combination_that_ended_early_is_farther_from_fp32_on_all_rows_too(setting, choice):
    fp32, calibration, holdout = setting
    early = [trial for trial in choice.trials if trial.rows < len(holdout.tokens)]
    assert early
    assert choice.best not in early
    for trial in early[:3]:
        model = fp32.clone()
        powers = {} if trial.alpha is None else exponents(fp32, channel_amax(fp32, calibration), trial.alpha)
        smooth(model, powers)
        quantize(model, calibrate(model, calibration, method=trial.method), TENSORRT)
        assert holdout.distance(model).rank > choice.best.distance.rank


def test_ranges_and_smoothing_belong_to_the_best_trial(setting, choice):
    fp32, _, holdout = setting
    model = fp32.clone()
    smooth(model, choice.smoothing)
    first_token(model)
    quantize(model, choice.ranges, TENSORRT)
    np.testing.assert_allclose(holdout.reference, logits_of(fp32, holdout.tokens), atol=1e-5)
    assert HEAD.distance(holdout.reference, logits_of(model, holdout.tokens)) == choice.best.distance


def test_a_given_alpha_is_the_only_one_tried(setting):
    choice = choose(*setting, alpha=0.5)
    assert {trial.alpha for trial in choice.trials} == {0.5}
    assert any(np.any(powers) for powers in choice.smoothing.values())


def test_candidates_share_the_weights_that_smoothing_leaves(exported):
    model = graph.load(exported["distilbert"])
    one, other = (graph.message(smoothed(model, {})).weights for _ in range(2))
    assert one
    assert all(np.shares_memory(array, other[name]) for name, array in one.items())
