"""`toolchain sweep`: a grid of models, tasks and options, each cell by the commands `build` and `eval`.

A cell is done if its result is there, so a sweep that was interrupted goes on where it was. Cells run one at a time in
processes of their own: a cell that crashes or runs out of memory ends alone, and no two share the meters of a machine.
A cell that failed runs again at the next call.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolchain.base.files import write_json
from toolchain.base.progress import track
from toolchain.errors import InputError, ToolchainError, UsageError
from toolchain.records.sweep import CellRun, Forecast, Front, GlueScore, SweepCell, SweepRecord
from toolchain.sweep import state
from toolchain.sweep.cells import Cell, Grid, Options, chosen, expand, make_cells, of_build, of_eval
from toolchain.sweep.depends import Digests, depends_on
from toolchain.sweep.forecast import forecast
from toolchain.sweep.here import impossible, require_measurable
from toolchain.sweep.runner import PROGRAM, Ended, run
from toolchain.sweep.study import Study, read_study

log = logging.getLogger(__name__)

# The folder of a sweep without -o is below this one.
RESULTS = Path("eval/results")

# Costs of the fronts of a file without objectives; with energy that too.
OBJECTIVES = ("latency", "throughput", "size")

# A build with this exit code has written its bundle: the gate failed, which the results say too.
GATE_FAILED = 3

# How the reason of a cell begins whose build failed.
BUILD = "build: "

Say = Callable[[str], None]

# Name of a cell -> the error that says why it is impossible here.
Reasons = dict[str, ToolchainError]


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a sweep."""

    sets: Sequence[str] = ()
    only: str | None = None
    yes: bool = False
    dry_run: bool = False
    output: Path | None = None
    search: int | None = None

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            UsageError: naming the option.
        """
        if self.search is not None and self.search < 1:
            raise UsageError(f"--search {self.search}: not a number of cells. Give at least 1.")


def sweep(file: Path, asked: Asked, *, program: Sequence[str] = PROGRAM, tell: Say = log.info) -> SweepRecord:
    """Run the cells of a sweep that are not done; return the record of all, which is also written to its folder.

    With `dry_run` nothing runs and nothing is written. `program` is what runs the commands of a cell.

    Raises:
        InputError: the file cannot be read, or the folder belongs to another sweep.
        MachineError: an objective cannot be measured on this machine.
        ToolchainError: no cell is possible; its class is that of the first reason.
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
            tell(f"--search {asked.search}: {search[1]} of the cells that are left would run")
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
            raise type(why)(f"{file}: no cell is possible here. {why}")
        its, count = _chosen_by_search(study, folder, asked_for, reasons, objectives, asked) or (todo, len(todo))
        for cell in track(its, total=count, text=study.name):
            _run(folder, cell, program, tell)
        record = _record(study, folder, objectives, grid, cells, last, reasons)
        if record != last:
            write_json(folder / state.RECORD, record)
        return record


def _chosen_by_search(
    study: Study, folder: Path, cells: Sequence[Cell], reasons: Reasons, objectives: Sequence[str], asked: Asked
) -> tuple[Iterable[Cell], int] | None:
    """Return the cells that a search runs one after the other, and how many they are at most; None without a search."""
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
    """Return a study whose cells all measure energy, if it is an objective."""
    return replace(study, axes=study.axes | {"energy": [True]}) if "energy" in objectives else study


def _reasons(folder: Path, cells: Sequence[Cell]) -> Reasons:
    """Return name -> why a cell is impossible here, of the cells that are not done."""
    found = {cell.name: impossible(cell.options) for cell in cells if not state.is_done(folder, cell)}
    return {name: reason for name, reason in found.items() if reason is not None}


def _run(folder: Path, cell: Cell, program: Sequence[str], tell: Say) -> None:
    """Build the bundle of a cell if it is not there, evaluate it, and keep what is known of both."""
    state.remove_left(folder, cell)
    before = state.read_run(folder, cell)
    file = folder / state.CELLS / cell.name / state.LOG
    bundle = folder / state.BUNDLES / cell.bundle
    kept: CellRun = {
        "attempts": (before["attempts"] if before else 0) + 1,
        "seconds": 0.0,
        "build_s": None,
        "exit_code": 0,
        "reason": None,
        "size_mb": None,
    }
    tell(cell.name)
    # A build that failed may have left a bundle without what was asked for, such as an engine.
    failed = before is not None and (before["reason"] or "").startswith(BUILD)
    if failed or not state.is_built(folder, cell):
        built = run(["build", *_sets(of_build(cell.options)), "-o", str(bundle), "--json"], file, program=program)
        kept["build_s"] = built.seconds
        if built.code not in (0, GATE_FAILED) or not state.is_built(folder, cell):
            reason = built.reason or "it wrote no bundle"
            _fail(folder, cell, kept | {"exit_code": built.code or 1, "reason": f"{BUILD}{reason}"}, built)
            return
    ended = run(["eval", str(bundle), *_sets(of_eval(cell.options)), "--json"], file, program=program)
    kept |= {"seconds": ended.seconds, "exit_code": ended.code, "reason": ended.reason}
    if ended.code:
        _fail(folder, cell, kept, ended)
        return
    try:
        state.keep(folder, cell, kept, ended)
    except (ToolchainError, OSError) as error:
        _fail(folder, cell, kept | {"exit_code": 1, "reason": f"eval: {error}"}, Ended(1, ended.seconds, b"", file))


def _fail(folder: Path, cell: Cell, kept: CellRun, ended: Ended) -> None:
    log.warning("%s failed: %s (log: %s)", cell.name, kept["reason"], ended.log)
    state.keep(folder, cell, kept, Ended(kept["exit_code"] or 1, ended.seconds, b"", ended.log))


def _sets(options: Options) -> list[str]:
    # TOML lacks JSON's pairs of surrogates, so characters stand as they are.
    texts = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in options.items()]
    return [word for text in texts for word in ("--set", text)]


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
    """Return the record of a cell; `why` is the reason if it is impossible here."""
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
    """Return fronts and scores; those of the last call if the same cells were done then."""
    done = [cell for cell in cells if cell["state"] == "done"]
    before = [one for one in last["cells"] if one["state"] == "done"] if last else None
    if last and before == done and last["objectives"] == list(objectives):
        return last["fronts"], last["glue"]
    from toolchain.evaluation.results import load_result  # imports that a call with nothing to do does not need
    from toolchain.report.glue import scores
    from toolchain.sweep.fronts import Done, fronts

    its = []
    for cell in done:
        try:
            assert cell["result"] is not None
            assert cell["run"] is not None
            its.append(Done(cell["name"], load_result(folder / cell["result"]), cell["run"]))
        except InputError as error:
            log.warning("%s It is left out of the fronts; remove its folder to run it again.", error)
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
