"""Selects the rows that a cascade's threshold is chosen on, and the rows that a lexical stage is fitted to."""

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

# Largest fraction of the rows that may also be train rows, as happens in some tasks of GLUE. These rows are left out.
# If there are more, a stage was trained on the rows, and all of them are refused.
MAX_SHARED = 0.05


@dataclass(frozen=True)
class Chosen:
    """The rows that the threshold is chosen on, each text once, and how many train rows were left out of them."""

    rows: Rows
    left_out: int


def choose_rows(resolved: ResolvedRecipe, given: str | None, stages: Iterable[Bundle] = ()) -> Chosen:
    """Return the rows to choose a threshold on: those in the file or folder `given`; if None, the split to evaluate.

    Train rows are left out. Rows that one of `stages` was shrunk or healed with are train rows too.

    Raises:
        InputError: all of the rows, or more than chance explains, are train rows, on which a stage is overconfident.
    """
    recipe = resolved.recipe
    reading: Reading = {**recipe.reading, "data": given}
    rows = load_all(resolved.task, **reading) if given else resolved.rows(recipe.split)
    if recipe.limit:
        rows = rows.take(range(min(recipe.limit, len(rows))))
    check_texts(rows)
    known = {*_train_digests(resolved)}.union(*map(learnt_digests, stages))
    why = (
        "are train rows, on which a stage is overconfident. Give rows that neither stage was trained on, with "
        "--calib-data or --split."
    )
    shared = rows.count_known(known, most=MAX_SHARED, why=why)
    if shared:
        log.warning("%s: %d of %d rows are also train rows, and are left out", rows.source, shared, len(rows))
    if not given:
        log.warning(
            "the threshold is chosen on %s, so the cascade's results on these rows are too optimistic. Give other "
            "labelled rows with --calib-data.",
            rows.source,
        )
    left = rows.without(known)
    if not len(left):
        raise InputError(f"{rows.source}: every row is also a train row. Give other labelled rows with --calib-data.")
    return Chosen(left, shared)


def train_rows(resolved: ResolvedRecipe, leaving: Collection[str]) -> Rows:
    """Return the train rows to fit a lexical stage to, each text once, without texts whose digest is in `leaving`.

    Raises:
        ToolchainError: no rows are left, or they cannot be read.
    """
    rows = resolved.rows("train")
    check_texts(rows)
    left = rows.without(leaving)
    if not len(left):
        raise InputError(f"{rows.source}: no train rows are left for the lexical stage. Give more rows with --data.")
    return left


def _train_digests(resolved: ResolvedRecipe) -> list[str]:
    try:
        return resolved.rows("train").text_digests
    except MissingSplitError as error:
        log.warning(
            "%s Without the train rows, it cannot be checked whether the threshold is chosen on some of them.", error
        )
        return []


def positions(rows: Rows, count: int, *, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the indices of `count` random rows, or of all rows if there are fewer, in rising order."""
    generator = np.random.default_rng(seed)
    return np.sort(generator.choice(len(rows), size=min(count, len(rows)), replace=False))
