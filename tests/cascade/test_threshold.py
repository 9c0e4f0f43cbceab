"""The search of the threshold on planted rows: it keeps its promise, and miscalibrated stages are refused."""

import numpy as np
import pytest

from tests.head_of import head_of
from toolchain.cascade import cost
from toolchain.cascade.threshold import SHARES, search, thresholds
from toolchain.errors import GateError
from toolchain.evaluation.statistics import paired_drop
from toolchain.heads.scores import margins

HEAD = head_of("no", "yes")


def stages(rows, *, seed=0, sure=3.0, big=0.95):
    """Return labels, and logits of a small stage whose margin says how likely it is right, and of a big one."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    margin = rng.exponential(sure, rows)
    right = rng.random(rows) < 1 / (1 + np.exp(-margin))
    small = np.zeros((rows, 2), np.float32)
    small[np.arange(rows), np.where(right, labels, 1 - labels)] = margin
    large = np.zeros((rows, 2), np.float32)
    large[np.arange(rows), np.where(rng.random(rows) < big, labels, 1 - labels)] = 4.0
    return labels, small, large


def found_in(labels, small, big, max_drop=1.0, confidence=0.95):
    return search(labels, small, big, HEAD, max_drop=max_drop, confidence=confidence, seed=0)


def test_the_search_ends_at_the_first_bound_that_is_too_large_and_keeps_the_one_before():
    labels, small, big = stages(4000)
    found = found_in(labels, small, big)
    *passed, last = found.tried
    assert {one["verdict"] for one in passed} == {"passes"}
    assert last["verdict"] != "passes" or len(found.tried) == len(SHARES)
    assert found.threshold == passed[-1]["threshold"]
    shares = [one["passed_on"] for one in found.tried]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(0.95, abs=0.01)
    # The bound is Tango's of the rows that the first stage answers otherwise.
    answered = margins(small) >= found.threshold
    one, two = small.argmax(axis=1) == labels, big.argmax(axis=1) == labels
    lost, gained = int((answered & ~one & two).sum()), int((answered & one & ~two).sum())
    bound = 100 * paired_drop(lost, gained, len(labels), confidence=0.95)[1]
    assert passed[-1]["bound_points"] == pytest.approx(bound)
    assert found.rest.tolist() == (~answered).tolist()


def test_the_true_drop_is_rarely_above_what_is_allowed():
    beyond, made, runs = 0, 0, 60
    for seed in range(runs):
        try:
            found = found_in(*stages(800, seed=seed, big=1.0), max_drop=2.0)
        except GateError:
            continue
        labels, small, _ = stages(40_000, seed=1000 + seed, big=1.0)
        answered = margins(small) >= found.threshold
        drop = 100 * (answered & (small.argmax(axis=1) != labels)).mean()
        beyond, made = beyond + (drop > 2.0), made + 1
    # 5 % are allowed; 8 of 60 or more would happen in one of 150 runs.
    assert (made > runs / 2, beyond < 8) == (True, True)


def test_a_threshold_lies_between_two_margins():
    sure = np.array([4, 3, 3, 2, 1, 0.5, 0.25, 0, np.nan, np.inf] * 4, np.float32)
    cut = thresholds(sure)
    assert cut == sorted(cut, reverse=True)
    assert not {*cut} & {*sure.tolist()}


def swapped(labels, small, big):
    return labels, small[:, ::-1], big


def always_sure(labels, small, big):
    return labels, np.tile(np.array([[9.0, 0.0]], np.float32), (len(labels), 1)), big


def unrelated(labels, small, big):
    return labels, np.random.default_rng(9).permutation(small), big


def overconfident(labels, small, big):
    rng = np.random.default_rng(9)
    wrong = np.arange(len(labels)) % 4 == 0
    small = np.where(wrong[:, None], -small, small) + rng.normal(0, 0.01, small.shape)
    return labels, (5 * small).astype(np.float32), big


def surest_where_wrong(labels, small, big):
    wrong = small.argmax(axis=1) != labels
    return labels, np.where(wrong[:, None], 50 * small, small).astype(np.float32), big


def not_numbers(labels, small, big):
    return labels, np.full_like(small, np.nan), big


def few_rows(labels, small, big):
    return labels[:60], small[:60], big[:60]


def noisy_labels(labels, small, big):
    return np.random.default_rng(9).permutation(labels), small, big


def one_label(labels, small, big):
    return np.ones_like(labels), small, big


@pytest.mark.parametrize(
    "plant",
    [
        swapped,
        always_sure,
        unrelated,
        overconfident,
        surest_where_wrong,
        not_numbers,
        few_rows,
        noisy_labels,
        one_label,
    ],
)
def test_a_miscalibrated_stage_is_refused(plant):
    with pytest.raises(GateError, match=r"^cascade: "):
        found_in(*plant(*stages(2000, sure=1.0, big=0.97)), max_drop=0.5)


def test_too_few_rows_are_told_how_many_would_do_and_so_many_do():
    labels, small, big = stages(100, sure=8.0, big=1.0)
    small = np.where((small.argmax(axis=1) == labels)[:, None], small, 0.01 * small).astype(np.float32)
    with pytest.raises(GateError, match=r"100 rows are too few to tell .* Give about ([\d,]+) rows") as caught:
        found_in(labels, small, big, max_drop=0.5)
    times = -(-int(str(caught.value).split("about ")[1].split(" ")[0].replace(",", "")) // 100)
    more = [np.concatenate([one] * times) for one in (labels, small, big)]
    more[1] = more[1] + np.linspace(0, 1e-3, len(more[1]), dtype=np.float32)[:, None] * (more[1] > 0)
    assert found_in(*more, max_drop=0.5).tried[0]["verdict"] == "passes"


def test_a_cascade_that_takes_as_long_as_its_second_stage_is_refused():
    cheap = cost.of_rounds([[0.05, 1.0, 0.46 + step / 1000] for step in range(7)], seed=0)
    assert (cheap.first, cheap.ratio) == (0.05, pytest.approx(0.463))
    assert cheap.ci95[0] <= cheap.ratio <= cheap.ci95[1] < 0.47
    cost.require(cheap)
    with pytest.raises(
        GateError, match=r"not faster than .* first stage takes 77%, and the second stage on .* takes 39%"
    ):
        cost.require(cost.of_rounds([[0.77, 1.0, 1.16]] * 7, seed=0))
