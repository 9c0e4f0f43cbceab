"""`toolchain sweep`: run a grid of models, tasks and options.

A cell of the grid is one combination of option values. It is run by the commands `build` and `eval`, and is done if its
result exists, so an interrupted sweep continues where it stopped. A cell that failed runs again at the next call.

Cells run one at a time, each in its own processes: a cell that crashes or runs out of memory does not end the others,
and no two cells use the energy meters of a machine at once. With `--ray`, each machine of a cluster runs one cell at a
time.
"""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolchain.base.files import write_json
from toolchain.base.progress import track
from toolchain.errors import InputError, ToolchainError, UsageError
from toolchain.records.sweep import Forecast, Front, GlueScore, SweepCell, SweepRecord
from toolchain.sweep import state
from toolchain.sweep.attempt import Say, attempt
from toolchain.sweep.cells import Cell, Grid, chosen, expand, make_cells, of_build
from toolchain.sweep.depends import Digests, depends_on
from toolchain.sweep.forecast import forecast
from toolchain.sweep.here import impossible, require_measurable
from toolchain.sweep.runner import PROGRAM
from toolchain.sweep.study import Study, read_study

log = logging.getLogger(__name__)

# Without -o, the folder of a sweep is created in this folder.
RESULTS = Path("eval/results")

# Costs for which Pareto fronts are computed if the sweep's file has no `objectives`. Energy is added if it is measured.
OBJECTIVES = ("latency", "throughput", "size")

# Form of an address of a Ray cluster: HOST:PORT of its head, or `auto` for the cluster of this machine.
ADDRESS = re.compile(r"auto|(?:[\w.-]+|\[[\da-fA-F:]+\]):\d+")

# Name of a cell -> the error that says why it is impossible here.
Reasons = dict[str, ToolchainError]


@dataclass(frozen=True)
class Asked:
    """The options of `toolchain sweep`."""

    sets: Sequence[str] = ()
    only: str | None = None
    yes: bool = False
    dry_run: bool = False
    output: Path | None = None
    search: int | None = None
    ray: str | None = None

    def check(self) -> None:
        """Check the values of the options.

        Raises:
            UsageError: a value is not allowed; the message names its option.
        """
        if self.search is not None and self.search < 1:
            raise UsageError(f"--search {self.search}: the number of cells must be at least 1.")
        if self.ray is not None and not ADDRESS.fullmatch(self.ray):
            raise UsageError(f"--ray {self.ray}: not an address. Give HOST:PORT of the cluster's head, or auto.")
        if self.search is not None and self.ray is not None:
            raise UsageError(
                "--search with --ray: a search needs the results of earlier cells to choose the next one, so its cells "
                "cannot run in parallel. Leave out one of the options."
            )


def sweep(file: Path, asked: Asked, *, program: Sequence[str] = PROGRAM, tell: Say = log.info) -> SweepRecord:
    """Run the cells of a sweep that are not done; write the record of all cells to its folder, and return it.

    With `asked.dry_run`, nothing is run or written. `program` has the words that start the toolchain.

    Raises:
        InputError: the file cannot be read, or the folder belongs to another sweep.
        MachineError: an objective cannot be measured on this machine.
        ToolchainError: no cell can run on this machine; the class is that of the first cell's error.
        UsageError: see `read_study`, `expand` and `chosen`.
    """
    asked.check()
    study = read_study(file, list(asked.sets), yes=asked.yes)
    folder = asked.output or RESULTS / study.name
    objectives = _objectives(study)
    study = _with_energy(study, objectives)
    grid = expand(study)
    if asked.dry_run:
        state.check(folder, study.name)
        cells = make_cells(grid.combinations, depends_on(Digests(folder / state.MEMORY)))
        asked_for, reasons = chosen(cells, asked.only), _reasons(folder, cells)
        require_measurable(objectives, {str(one.options.get("device", "auto")) for one in asked_for})
        if search := _chosen_by_search(study, folder, asked_for, reasons, objectives, asked):
            tell(f"--search {asked.search}: at most {search[1]} of the remaining cells would run")
        return _record(study, folder, objectives, grid, cells, state.read_record(folder), reasons)
    with state.opened(folder, study.name) as last:
        digests = Digests(folder / state.MEMORY)
        cells = make_cells(grid.combinations, depends_on(digests))
        digests.keep()
        asked_for, reasons = chosen(cells, asked.only), _reasons(folder, cells)
        todo = [cell for cell in asked_for if cell.name not in reasons and not state.is_done(folder, cell)]
        if todo:
            require_measurable(objectives, {str(one.options.get("device", "auto")) for one in todo})
        elif len(reasons) == len(cells):
            why = reasons[cells[0].name]
            raise type(why)(f"{file}: no cell can run on this machine. {why}")
        its, count = _chosen_by_search(study, folder, asked_for, reasons, objectives, asked) or (todo, len(todo))
        if asked.ray is None:
            for cell in track(its, total=count, text=study.name):
                attempt(folder, cell, program, tell)
        elif todo:
            from toolchain.sweep.spread import spread

            for _ in track(spread(todo, folder, asked.ray, program, tell), total=count, text=study.name):
                pass
        record = _record(study, folder, objectives, grid, cells, last, reasons)
        if record != last:
            write_json(folder / state.RECORD, record)
        return record


def _chosen_by_search(
    study: Study, folder: Path, cells: Sequence[Cell], reasons: Reasons, objectives: Sequence[str], asked: Asked
) -> tuple[Iterable[Cell], int] | None:
    """Return an iterator of the cells that a search chooses, and how many they are at most; None without a search."""
    if asked.search is None:
        return None
    from toolchain.sweep.search import Search, require_one_task, searched

    require_one_task(study)
    able = {cell.name: cell for cell in cells if cell.name not in reasons}
    done = sum(state.is_done(folder, cell) for cell in able.values())
    search = Search(list(able.values()))
    return searched(search, folder, able, objectives, asked.search), max(0, min(asked.search, len(able)) - done)


def _objectives(study: Study) -> tuple[str, ...]:
    energy = ("energy",) if True in study.axes.get("energy", []) else ()
    return study.objectives or (*energy, *OBJECTIVES)


def _with_energy(study: Study, objectives: Sequence[str]) -> Study:
    """Return the study, changed so that all cells measure energy if energy is an objective."""
    return replace(study, axes=study.axes | {"energy": [True]}) if "energy" in objectives else study


def _reasons(folder: Path, cells: Sequence[Cell]) -> Reasons:
    """Return name -> error, for the cells that are not done and cannot run on this machine."""
    found = {cell.name: impossible(cell.options) for cell in cells if not state.is_done(folder, cell)}
    return {name: reason for name, reason in found.items() if reason is not None}


def _record(
    study: Study,
    folder: Path,
    objectives: Sequence[str],
    grid: Grid,
    cells: Sequence[Cell],
    last: SweepRecord | None,
    reasons: Reasons,
) -> SweepRecord:
    shown = [_cell(folder, cell, reasons.get(cell.name)) for cell in cells]
    found, scores = _judged(folder, shown, objectives, last)
    return {
        "schema": state.SCHEMA,
        "name": study.name,
        "folder": str(folder),
        "objectives": list(objectives),
        "cells": shown,
        "merged": grid.merged,
        "excluded": grid.excluded,
        "fronts": found,
        "glue": scores,
        "forecast": _forecast(folder, cells, shown),
    }


def _cell(folder: Path, cell: Cell, why: ToolchainError | None) -> SweepCell:
    """Return the record of a cell; `why` is the error if the cell cannot run on this machine."""
    done, known = state.is_done(folder, cell), state.read_run(folder, cell)
    failed = known is not None and known["exit_code"] != 0 and not done
    return {
        "key": cell.key,
        "name": cell.name,
        "options": cell.options,
        "bundle": os.path.join(state.BUNDLES, cell.bundle),
        "state": "done" if done else "impossible" if why else "failed" if failed else "waiting",
        "reason": None if done else str(why) if why else known["reason"] if known else None,
        "result": os.path.join(state.CELLS, cell.name, state.RESULT) if done else None,
        "run": known,
    }


def _judged(
    folder: Path, cells: Sequence[SweepCell], objectives: Sequence[str], last: SweepRecord | None
) -> tuple[list[Front], list[GlueScore]]:
    """Return the Pareto fronts and the GLUE scores, copied from `last` if the same cells are done now."""
    done = [cell for cell in cells if cell["state"] == "done"]
    before = [one for one in last["cells"] if one["state"] == "done"] if last else None
    if last and before == done and last["objectives"] == list(objectives):
        return last["fronts"], last["glue"]
    # Imported here, because a call with nothing to do does not need it.
    from toolchain.evaluation.results import load_result
    from toolchain.report.glue import scores
    from toolchain.sweep.fronts import Done, fronts

    its = []
    for cell in done:
        try:
            assert cell["result"] is not None
            assert cell["run"] is not None
            its.append(Done(cell["name"], load_result(folder / cell["result"]), cell["run"]))
        except InputError as error:
            log.warning("%s The cell is left out of the fronts. Remove its folder to run it again.", error)
    return fronts(its, objectives), [one.to_json() for one in scores([one.result for one in its])]


def _forecast(folder: Path, cells: Sequence[Cell], shown: Sequence[SweepCell]) -> Forecast:
    pairs = list(zip(cells, shown, strict=True))
    todo = [cell for cell, one in pairs if one["state"] in ("waiting", "failed")]
    builds = {cell.bundle: of_build(cell.options) for cell in todo if not state.is_built(folder, cell)}
    runs = [(cell.options, one["run"]) for cell, one in pairs if one["state"] == "done" and one["run"]]
    evals = forecast([cell.options for cell in todo], [(options, known["seconds"]) for options, known in runs])
    built = forecast(
        list(builds.values()),
        [(of_build(options), known["build_s"]) for options, known in runs if known["build_s"] is not None],
    )
    return {
        "cells": len(todo),
        "builds": len(builds),
        "seconds": None if evals is None or built is None else evals + built,
    }
