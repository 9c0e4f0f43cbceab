"""The rows of text that a student learns from, and the labelled rows that it is evaluated on."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.data.labels import check_texts
from toolchain.data.metrics import Values
from toolchain.data.rows import Rows, read_texts
from toolchain.data.tables import is_single
from toolchain.errors import InputError, UsageError
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues

log = logging.getLogger(__name__)

# With fewer texts a student learns the texts and not the teacher.
LEAST_TEXTS = 1000

# Rows of a table that are read at once.
PART_ROWS = 4096


@dataclass(frozen=True)
class Evaluated:
    """Labelled rows, and their labels as the head reads them."""

    rows: Rows
    references: Values


@dataclass(frozen=True)
class Chosen:
    """Rows to learn from, whose labels nobody reads; how many were left out of them; and what is evaluated, if any."""

    rows: Rows
    left_out: int
    evaluated: Evaluated | None


def recipe_of(changes: RecipeValues) -> Recipe:
    """Return the recipe of options by their names; texts alone need no label column, also under `--task custom`.

    Raises:
        UsageError: see `Recipe.make`.
    """
    if changes.get("task") == "custom" and not changes.get("label_column"):
        recipe = Recipe.make({**changes, "label_column": "LABEL_COLUMN"})  # as the next command names it
        if is_texts(recipe):
            return recipe
    return Recipe.make(changes)


def is_texts(recipe: Recipe) -> bool:
    """Return whether the rows are one table without splits, whose labels are not read."""
    divided = recipe.split_column is not None or recipe.validation_share is not None
    return recipe.data is not None and not divided and is_single(Path(recipe.data))


def choose_rows(resolved: ResolvedRecipe) -> Chosen:
    """Return the train rows, or the texts of one table without labels; and the rows of the split to evaluate.

    A text of the split to evaluate is not learnt from.

    Raises:
        InputError: the texts are too few, or cannot be read.
        UsageError: there is a gate, and no row to evaluate.
    """
    recipe = resolved.recipe
    alone = is_texts(recipe)
    rows = _texts_of(resolved, Path(str(recipe.data))) if alone else resolved.rows("train")
    check_texts(rows)
    evaluated = None if alone else _evaluated(resolved)
    if evaluated is None and recipe.max_drop is not None:
        raise UsageError(
            f"--max-drop {recipe.max_drop:g}: there are no labelled rows to evaluate. Give a folder with train.* and "
            "validation.* as --data, or leave it out."
        )
    split, kept = None if alone else resolved.evaluated_rows, rows
    if split is not None:  # also what --limit leaves out of it, which a build evaluates later
        kept = rows.take(np.flatnonzero(~rows.among(set(split.text_digests))))
    if len(kept) < LEAST_TEXTS:
        out = f" (rows that are evaluated: {len(rows) - len(kept):,})" if len(kept) < len(rows) else ""
        raise InputError(
            f"{rows.source}: only {len(kept):,} rows of text can be learnt from{out}. Give {LEAST_TEXTS:,} or more."
        )
    if len(kept) < len(rows):
        log.warning("%s: %d rows are evaluated, and are not learnt from", rows.source, len(rows) - len(kept))
    return Chosen(kept, len(rows) - len(kept), evaluated)


def _texts_of(resolved: ResolvedRecipe, file: Path) -> Rows:
    """Return the texts of one table as rows without labels."""
    join = resolved.recipe.text_join or resolved.head.join
    parts = read_texts(file, resolved.task.text_columns, rows=PART_ROWS, text_join=join)
    texts = [text for part in parts for text in part]
    return Rows(str(file), texts, [""] * len(texts))


def _evaluated(resolved: ResolvedRecipe) -> Evaluated | None:
    rows, limit = resolved.evaluated_rows, resolved.recipe.limit
    if rows is None:
        return None
    rows = rows.take(range(min(limit, len(rows)))) if limit else rows
    check_texts(rows)
    return Evaluated(rows, resolved.head.read(rows))
