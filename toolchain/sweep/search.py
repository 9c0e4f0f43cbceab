"""`sweep --search N`: which cells of a grid to run, by what the cells before them measured.

A model of main effects predicts the metric and the costs of the cells that have not run: each value of an option adds
its own amount, to the logarithm in the case of a cost, since options multiply time and energy. Next is the cell whose
prediction goes farthest beyond the cells that ran. docs/log.md compares this with other searches.

The search has no state of its own: the cells that are done are told to it again at each call, so that it goes on where
it was interrupted, and cells that ran without a search count too.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import InputError, UsageError
from toolchain.evaluation.results import load_result
from toolchain.report.costs import COSTS
from toolchain.sweep import state
from toolchain.sweep.cells import Cell
from toolchain.sweep.study import Study

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

# Cells that run at random before there is a model.
START = 10

# Ridge of the least squares: without it, options whose values were not all seen have no solution.
RIDGE = 1e-3


def require_one_task(study: Study) -> None:
    """Refuse a search over several tasks: their metrics cannot be compared.

    Raises:
        UsageError: there are several tasks.
    """
    tasks = study.axes.get("task", [])
    if len(tasks) > 1:
        raise UsageError(
            f"--search: {study.name} has several tasks, whose metrics cannot be compared. "
            f"Search one at a time, such as --set task={tasks[0]}"
        )


class Search:
    """A search over cells: `tell` what they measured, and `ask` for the next."""

    def __init__(self, cells: Sequence[Cell], *, seed: int = 0) -> None:
        """Take the cells that may run, and the seed of the first ones."""
        self._features = _features(cells)
        self._random = np.random.default_rng(seed)
        self._known: dict[str, list[float]] = {}
        self.left = [cell.name for cell in cells]

    def tell(self, name: str, values: list[float] | None) -> None:
        """Take what a cell measured, each value less where it is better; None if it failed or lacks a cost."""
        self.left.remove(name)
        if values is not None:
            self._known[name] = values

    def ask(self) -> str:
        """Return the name of the next cell."""
        if len(self._known) < START:
            return str(self._random.choice(self.left))
        known = np.array(list(self._known.values()))
        seen = np.array([self._features[name] for name in self._known])
        square = seen.T @ seen + RIDGE * np.eye(seen.shape[1])
        effects = np.linalg.solve(square, seen.T @ known)
        predicted = np.array([self._features[name] for name in self.left]) @ effects
        return self.left[int(np.argmin(_behind(predicted, known)))]


def _behind(points: Floats, known: Floats) -> Floats:
    """Return how far each point is behind the known ones: the additive epsilon indicator, in ranges of each objective.

    It is what has to be subtracted from all values of a point so that no known one dominates it; below 0, none does.
    Source: Zitzler et al., Performance Assessment of Multiobjective Optimizers, 2003.

    Args:
        points: predicted values, [points, objectives].
        known: measured values, [cells, objectives].
    """
    spread = np.ptp(known, axis=0)
    scaled = (points[:, None] - known[None]) / np.where(spread > 0, spread, 1.0)
    return np.asarray(scaled.min(axis=2).max(axis=1))


def _features(cells: Sequence[Cell]) -> dict[str, Floats]:
    """Return the name of each cell with 1 for every value that it has, and a constant, [values + 1]."""
    values = sorted({json.dumps(pair) for cell in cells for pair in cell.options.items()})
    own = {cell.name: {json.dumps(pair) for pair in cell.options.items()} for cell in cells}
    return {name: np.array([1.0, *(float(one in its) for one in values)]) for name, its in own.items()}


def searched(
    search: Search, folder: Path, cells: Mapping[str, Cell], objectives: Sequence[str], count: int
) -> Iterator[Cell]:
    """Yield the next cell until `count` cells are done or have failed; each has run once the next one is asked for."""
    done = [cell for cell in cells.values() if state.is_done(folder, cell)]
    for cell in done:
        search.tell(cell.name, measured(folder, cell, objectives))
    for _ in range(min(count - len(done), len(search.left))):
        cell = cells[search.ask()]
        yield cell
        search.tell(cell.name, measured(folder, cell, objectives))


def measured(folder: Path, cell: Cell, objectives: Sequence[str]) -> list[float] | None:
    """Return the negative metric and the logarithms of the costs of a cell; None if it failed or lacks one of them."""
    run = state.read_run(folder, cell)
    if run is None or not state.is_done(folder, cell):
        return None
    try:
        result = load_result(folder / state.CELLS / cell.name / state.RESULT)
    except InputError as error:
        log.warning("%s The search does not use it.", error)
        return None
    values = []
    for one in objectives:
        ends = COSTS[one].ends(result, run)
        if ends is None or ends[0] <= 0:
            return None
        values.append(math.log(ends[0]) * (1 if COSTS[one].less else -1))
    return None if result["primary"] is None else [-result["metrics"][result["primary"]], *values]
