"""The rows of a cascade: those that its threshold is chosen on, and those that a lexical stage is fitted to."""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from toolchain.bundle import Bundle
from toolchain.bundle.learnt import learnt_digests
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.data.labels import check_texts
from toolchain.data.rows import Rows, load_all
from toolchain.data.tables import MissingSplitError
from toolchain.errors import InputError
from toolchain.recipe import Reading

log = logging.getLogger(__name__)

# Share of a split that may be train rows too, as in some of GLUE's tasks. They are left out; more would mean that the
# rows were trained on.
MAX_SHARED = 0.05


@dataclass(frozen=True)
class Chosen:
    """The rows that the threshold is chosen on, each text once, and how many were left out as train rows."""

    rows: Rows
    left_out: int


def choose_rows(resolved: ResolvedRecipe, given: str | None, stages: Iterable[Bundle] = ()) -> Chosen:
    """Return the rows in `given`, a folder or a file, or else of the split to evaluate, without train rows.

    Rows that one of `stages` was shrunk or healed with are train rows too.

    Raises:
        InputError: a stage was trained on all of them, or on more than chance explains: it is too sure of these.
    """
    recipe = resolved.recipe
    reading: Reading = {**recipe.reading, "data": given}
    rows = load_all(resolved.task, **reading) if given else resolved.rows(recipe.split)
    if recipe.limit:
        rows = rows.take(range(min(recipe.limit, len(rows))))
    check_texts(rows)
    known = {*_train_digests(resolved)}.union(*map(learnt_digests, stages))
    why = (
        "are train rows, of which a stage is too sure. Give rows that neither stage was trained on, with --calib-data "
        "or --split."
    )
    shared = rows.count_known(known, most=MAX_SHARED, why=why)
    if shared:
        log.warning("%s: %d of %d rows are also train rows, and are left out", rows.source, shared, len(rows))
    if not given:
        log.warning(
            "the threshold is chosen on %s, so figures of the cascade on these rows are too good. Give other labelled "
            "rows with --calib-data.",
            rows.source,
        )
    left = rows.without(known)
    if not len(left):
        raise InputError(f"{rows.source}: every row is also a train row. Give other labelled rows with --calib-data.")
    return Chosen(left, shared)


def train_rows(resolved: ResolvedRecipe, leaving: Collection[str]) -> Rows:
    """Return the train rows to fit a lexical stage to, each text once, without texts of the digests `leaving`.

    Raises:
        ToolchainError: there are none, or they cannot be read.
    """
    rows = resolved.rows("train")
    check_texts(rows)
    left = rows.without(leaving)
    if not len(left):
        raise InputError(f"{rows.source}: no train row is left to fit a lexical stage to. Give more with --data.")
    return left


def _train_digests(resolved: ResolvedRecipe) -> list[str]:
    try:
        return resolved.rows("train").text_digests
    except MissingSplitError as error:
        log.warning("%s So nobody checks whether the threshold is chosen on train rows.", error)
        return []


def positions(rows: Rows, count: int, *, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return at most `count` positions of rows, drawn without replacement, in rising order."""
    generator = np.random.default_rng(seed)
    return np.sort(generator.choice(len(rows), size=min(count, len(rows)), replace=False))
