"""The search on real graphs, and on a made-up one whose best exclusion is known."""

import numpy as np
import pytest

from tests.head_of import head_of
from toolchain import graph
from toolchain.base.tensors import Range
from toolchain.heads.distance import Distance
from toolchain.int8.calibrate import calibrate
from toolchain.int8.holdout import Holdout, choose_holdout
from toolchain.int8.mixed_precision import Search
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.int8.sensitivity import Sensitivity, measure_noise

HEAD = head_of("no", "yes")


@pytest.fixture(scope="module")
def setting(exported, tokens_of):
    model, tokens = graph.load(exported["distilbert"]), tokens_of("distilbert", 40)
    ranges = calibrate(model, tokens, method="minmax")
    # The range of one tensor is far too small: its GEMM must be the first to be excluded.
    broken = "distilbert.transformer.layer.1.ffn.lin2.input"
    ranges[broken] = Range(ranges[broken].amax / 200, 0, ranges[broken].amax / 200)
    return model, ranges, choose_holdout(model, tokens_of("distilbert", 30), head=HEAD, seed=0)


def test_noise_is_measured_for_each_gemm_alone(setting):
    model, ranges, holdout = setting
    gemms = measure_noise(model, ranges, holdout.tokens)
    assert sum(gemm.macs for gemm in gemms) == pytest.approx(1)
    assert min(gemms, key=lambda gemm: gemm.snr_db).name == "distilbert.transformer.layer.1.ffn.lin2"
    assert {gemm.kind for gemm in gemms} == {"linear", "attention"}
    by_name = {gemm.name.split("layer.0.")[-1]: gemm for gemm in gemms}
    assert by_name["ffn.lin1"].macs == pytest.approx(2 * by_name["attention.q_lin"].macs)


class ByDistance(Holdout):
    """Few rows change their label, so here the distance itself counts as the drop."""

    def expected_drop(self, found):
        return found.rank


def test_only_the_broken_gemm_is_excluded(setting):
    model, ranges, holdout = setting
    holdout = ByDistance(holdout.tokens, holdout.reference, holdout.pool, holdout.head)
    search = Search(model, ranges, holdout, 20, {})
    before = search.run(max_drop=1e9)
    assert before.best.keep == ()
    limit = before.best.expected_drop_points * 0.5
    tuned = Search(model, ranges, holdout, 20, search.memory).run(max_drop=limit)
    assert tuned.enough
    assert tuned.best.keep == ("distilbert.transformer.layer.1.ffn.lin2",)
    model = model.clone()
    quantize(model, ranges, TENSORRT, keep=tuned.best.keep)
    assert holdout.distance(model) == tuned.best.distance


class Errors:
    """Hold-out rows on which the error itself counts as the drop."""

    def expected_drop(self, found):
        return found.rms

    def sample(self, rows):
        return self


class Known(Search):
    """A search in which every GEMM's error is known and errors add up."""

    def __init__(self, errors, budget, memory=None):
        super().__init__(None, {}, None, budget, {} if memory is None else memory)
        self.errors, self.fresh = errors, 0

    def _noise(self):
        self.memory.setdefault("evaluations", {})
        return [Sensitivity(name, "linear", 1 / len(self.errors), -error) for name, error in self.errors.items()]

    def _distance(self, key, keep, holdout, *, residual=False):
        if key not in self.memory["evaluations"]:
            self.fresh += 1
            left = sum(error for name, error in self.errors.items() if name not in set(keep))
            self.memory["evaluations"][key] = Distance(None, left * (1 + residual / 4), None).to_json()
        self.evaluated.add(key)
        return Distance(**self.memory["evaluations"][key])

    def _exclude(self, keep, *, residual=False):
        self.holdout = Errors()
        return super()._exclude(keep, residual=residual)


ERRORS = {f"p{index}": 2.0 ** -abs(index - 7) for index in range(16)}


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0, 1.7])
def test_the_smallest_exclusion_is_found(limit):
    found = Known(ERRORS, 60).run(max_drop=limit)
    largest_first = sorted(ERRORS.values(), reverse=True)
    fewest = next(count for count in range(17) if sum(largest_first[count:]) <= limit)
    assert len(found.best.keep) == fewest
    assert found.enough


@pytest.mark.parametrize(
    ("budget", "limit", "allowed"), [(60, 0.3, True), (60, 0.25, False), (8, 10, True), (1, 10, False)]
)
def test_residuals_in_int8_are_allowed_within_limit_and_budget(budget, limit, allowed):
    found = Known(ERRORS, budget).run(max_drop=limit)
    assert bool(found.residual) == allowed
    if allowed:
        assert found.residual.keep == found.best.keep
        assert found.best.expected_drop_points < found.residual.expected_drop_points <= limit


def test_the_budget_holds_and_a_stopped_search_resumes():
    whole = Known(ERRORS, 24)
    expected = whole.run(max_drop=0.3)
    assert expected.evaluations <= 24
    kept = dict(list(whole.memory["evaluations"].items())[:10])
    again = Known(ERRORS, 24, {"evaluations": kept})
    assert again.run(max_drop=0.3) == expected
    assert again.fresh == whole.fresh - 10


def test_no_more_work_is_excluded_than_allowed():
    found = Known(ERRORS, 60).run(max_drop=0.01, most_macs=0.2)
    assert not found.enough
    assert found.best.macs <= 0.2
    assert set(found.best.keep) == {"p7", "p8", "p6"}


def test_half_of_the_rows_are_near_the_decision_boundary(exported, tokens_of):
    model, pool = graph.load(exported["bert"]), tokens_of("bert", 600)
    holdout = choose_holdout(model, pool, head=HEAD, seed=0)
    assert (len(holdout.reference), holdout.pool) == (512, 600)
    margin = np.abs(holdout.reference[:, 0] - holdout.reference[:, 1])
    assert np.isfinite(margin).all()
    assert holdout.distance(model).rms < 1e-5
    assert holdout.expected_drop(Distance(0.1, 0.1, 3 / 512)) == pytest.approx(100 * 2 * 3 / 600)
