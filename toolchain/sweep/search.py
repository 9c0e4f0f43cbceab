"""`sweep --search N`: choose which cells of a grid to run, from the results of the cells that have run.

A linear model predicts the metric and the costs of the cells that have not run: each value of an option adds its own
amount (a main effect). For a cost, it adds to the logarithm, since options multiply time and energy. The next cell is
the one whose prediction improves most on the Pareto front of the cells that ran. docs/log.md compares this with other
searches.

The search saves no state. At each call, it is told the results of all cells that are done, so that it continues where
it was interrupted, and also uses cells that ran without a search.
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

# Number of cells that are chosen at random before a model of the results can be fitted.
START = 10

# Ridge of the least-squares fit. Without it, the fit has no unique solution while some values of an option have not run
# yet.
RIDGE = 1e-3


def require_one_task(study: Study) -> None:
    """Check that a study has only one task, since the metrics of several tasks cannot be compared.

    Raises:
        UsageError: the study has several tasks.
    """
    tasks = study.axes.get("task", [])
    if len(tasks) > 1:
        raise UsageError(
            f"--search: {study.name} has several tasks, whose metrics cannot be compared. "
            f"Search one task at a time, such as --set task={tasks[0]}"
        )


class Search:
    """A search over cells: `tell` it the results of cells that ran, and `ask` it for the next cell."""

    def __init__(self, cells: Sequence[Cell], *, seed: int = 0) -> None:
        """Begin a search over the cells that may run; `seed` is for the first cells, which are chosen at random."""
        self._features = _features(cells)
        self._random = np.random.default_rng(seed)
        self._known: dict[str, list[float]] = {}
        self.left = [cell.name for cell in cells]

    def tell(self, name: str, values: list[float] | None) -> None:
        """Add the result of a cell: its values (lower is better), or None if the cell failed or lacks a cost."""
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
    """Return how far each point is behind the known ones: the additive epsilon indicator.

    It is the amount that has to be subtracted from all values of a point so that no known point dominates it, in units
    of the range of each objective. Below 0, no known point dominates it. Source: Zitzler et al., Performance Assessment
    of Multiobjective Optimizers, 2003.

    Args:
        points: predicted values, [points, objectives].
        known: measured values, [cells, objectives].
    """
    spread = np.ptp(known, axis=0)
    scaled = (points[:, None] - known[None]) / np.where(spread > 0, spread, 1.0)
    return np.asarray(scaled.min(axis=2).max(axis=1))


def _features(cells: Sequence[Cell]) -> dict[str, Floats]:
    """Return name of a cell -> its features, [values + 1]: a constant 1, and 1 or 0 for each value of an option."""
    values = sorted({json.dumps(pair) for cell in cells for pair in cell.options.items()})
    own = {cell.name: {json.dumps(pair) for pair in cell.options.items()} for cell in cells}
    return {name: np.array([1.0, *(float(one in its) for one in values)]) for name, its in own.items()}


def searched(
    search: Search, folder: Path, cells: Mapping[str, Cell], objectives: Sequence[str], count: int
) -> Iterator[Cell]:
    """Yield the next cell to run, until `count` cells are done or have failed.

    The caller must have run a cell before it asks for the next one.
    """
    done = [cell for cell in cells.values() if state.is_done(folder, cell)]
    for cell in done:
        search.tell(cell.name, measured(folder, cell, objectives))
    for _ in range(min(count - len(done), len(search.left))):
        cell = cells[search.ask()]
        yield cell
        search.tell(cell.name, measured(folder, cell, objectives))


def measured(folder: Path, cell: Cell, objectives: Sequence[str]) -> list[float] | None:
    """Return the result of a cell as values of which lower ones are better: negative metric and logarithms of costs.

    Return None if the cell failed or a value is missing.
    """
    run = state.read_run(folder, cell)
    if run is None or not state.is_done(folder, cell):
        return None
    try:
        result = load_result(folder / state.CELLS / cell.name / state.RESULT)
    except InputError as error:
        log.warning("%s The search does not use this cell.", error)
        return None
    values = []
    for one in objectives:
        ends = COSTS[one].ends(result, run)
        if ends is None or ends[0] <= 0:
            return None
        values.append(math.log(ends[0]) * (1 if COSTS[one].less else -1))
    return None if result["primary"] is None else [-result["metrics"][result["primary"]], *values]
