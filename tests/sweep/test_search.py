"""A search over the cells of a grid: what it finds in a given number of cells, against the whole grid and chance."""

import math

import numpy as np
import pytest

from tests.sweep.conftest import GRID, STANDIN
from tests.sweep.test_sweep import runs, states
from toolchain.errors import UsageError
from toolchain.sweep import Asked, sweep
from toolchain.sweep.cells import expand, make_cells
from toolchain.sweep.search import Search
from toolchain.sweep.study import Study

AXES = {
    "model": ["./six", "./four", "./three", "./two"],
    "max_length": [32, 48, 64, 96, 128],
    "backend": ["ort", "openvino", "trt", "ort-trt", "trt-rtx"],
    "precision": ["fp32", "int8"],
}
TRIALS = 50


def figures(model, length, backend, precision):
    """Return accuracy and milliseconds of a cell, in the shape that real sweeps have: diminishing gains of size."""
    layers, accuracy = {"./six": (6, 0.905), "./four": (4, 0.893), "./three": (3, 0.875), "./two": (2, 0.835)}[model]
    factor, gain = {"ort": (1.3, 0.45), "openvino": (1.2, 0.5), "trt": (2.2, 0.9), "ort-trt": (1.25, 0.4)}.get(
        backend, (1.6, 0.7)
    )
    noise = np.random.default_rng(sum(map(ord, f"{model}{length}{backend}{precision}"))).standard_normal(2)
    quality = accuracy - 0.05 * np.exp(-length / 28) - 0.006 * (precision == "int8") + 0.002 * noise[0]
    work = layers * (0.25 + length / 128) * (gain if precision == "int8" else 1)
    return quality, factor * (0.4 + work) * (1 + 0.05 * noise[1])


class Recorded:
    """A folder in which every cell of the grid has its result, and the cells as a search sees them."""

    def __init__(self):
        self.study = Study("grid", ("latency",), AXES, ())
        self.cells = {one.name: one for one in make_cells(expand(self.study).combinations, lambda options: None)}
        self.figures = {name: figures(*(cell.options[key] for key in AXES)) for name, cell in self.cells.items()}
        gains, costs = zip(*self.figures.values(), strict=True)
        self.worst, self.best = (min(gains), max(costs)), (max(gains), min(costs))

    def volume(self, names):
        """Return the area that the cells dominate, of the area between the worst and the best values, 0 to 1."""
        area, lowest = 0.0, 1.0
        for gain, cost in sorted((self.scaled(name) for name in names), reverse=True):
            if cost < lowest:
                area, lowest = area + gain * (lowest - cost), cost
        return area

    def scaled(self, name):
        gain, cost = self.figures[name]
        (low, high), (best, least) = self.worst, self.best
        return (gain - low) / (best - low), (cost - least) / (high - least)


def found(recorded, seed):
    """Return the cells that a search runs, one after the other."""
    search, names = Search(list(recorded.cells.values()), seed=seed), []
    for _ in range(TRIALS):
        names.append(search.ask())
        gain, cost = recorded.figures[names[-1]]
        search.tell(names[-1], [-gain, math.log(cost)])
    return names


def test_50_of_200_cells_find_the_front_better_than_chance():
    recorded = Recorded()
    assert len(recorded.cells) == 200
    whole = recorded.volume(recorded.cells)
    searches = [found(recorded, seed) for seed in range(10)]
    assert all(len(set(one)) == TRIALS for one in searches)
    shares = [recorded.volume(one) / whole for one in searches]
    chance = [
        recorded.volume(np.random.default_rng(seed).permutation(list(recorded.cells))[:TRIALS]) / whole
        for seed in range(101)
    ]
    assert min(shares) >= 0.95, shares
    assert np.median(shares) > np.quantile(chance, 0.9)


def test_a_search_runs_as_many_cells_as_asked_and_goes_on_where_it_was(study, monkeypatch):
    assert states(sweep(study(), Asked(search=3), program=STANDIN)) == {"done": 3, "waiting": 5}
    assert states(sweep(study(), Asked(search=3), program=("false",))) == {"done": 3, "waiting": 5}
    said = []
    sweep(study(), Asked(search=5, dry_run=True), program=("false",), tell=said.append)
    assert said == ["--search 5: at most 2 of the remaining cells would run"]
    monkeypatch.setenv("STANDIN_FAULT", '{"bundles/int8": "exit"}')
    record = sweep(study(), Asked(search=6), program=STANDIN)
    assert sum(states(record)[one] for one in ("done", "failed")) == 6
    monkeypatch.delenv("STANDIN_FAULT")
    assert states(sweep(study(), Asked(search=100), program=STANDIN)) == {"done": 8}
    assert len(runs()) == 8  # none ran twice


def test_merged_and_excluded_cells_are_never_asked_for(study, monkeypatch):
    text = (
        GRID.replace("[10, 20]", "[10]")
        + 'attention = ["eager", "sdpa"]\n[[exclude]]\nbackend = "ort"\nprecision = "fp32"\n'
    )
    record = sweep(study(text), Asked(search=10), program=STANDIN)
    assert states(record) == {"done": 3}
    assert (record["merged"], record["excluded"]) == (3, 2)


def test_what_a_search_refuses(study):
    with pytest.raises(UsageError, match="--search 0: the number of cells must be at least 1"):
        sweep(study(), Asked(search=0), program=STANDIN)
    with pytest.raises(UsageError, match=r"several tasks, .* --set task=demo"):
        sweep(
            study(GRID.replace('task = "demo"', 'task = ["demo", "demo-tokens"]')),
            Asked(search=3, dry_run=True),
            program=STANDIN,
        )
