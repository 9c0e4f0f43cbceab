"""Chooses the texts that a student of `shrink` learns from, and the labelled rows that it is evaluated on."""

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

# Least number of texts. With fewer, a student memorises the texts instead of learning to imitate the teacher.
LEAST_TEXTS = 1000

# Number of rows of a table that are read at once.
PART_ROWS = 4096


@dataclass(frozen=True)
class Evaluated:
    """The labelled rows to evaluate, and their labels in the form that metrics take."""

    rows: Rows
    references: Values


@dataclass(frozen=True)
class Chosen:
    """The rows to learn from, whose labels are not read; how many were left out; and the rows to evaluate.

    `evaluated` is None if there are no labelled rows.
    """

    rows: Rows
    left_out: int
    evaluated: Evaluated | None


def recipe_of(changes: RecipeValues) -> Recipe:
    """Return the recipe for the options in `changes`.

    A table of texts needs no label column, not even for `--task custom`.

    Raises:
        UsageError: see `Recipe.make`.
    """
    if changes.get("task") == "custom" and not changes.get("label_column"):
        recipe = Recipe.make({**changes, "label_column": "LABEL_COLUMN"})  # the placeholder that the next command shows
        if is_texts(recipe):
            return recipe
    return Recipe.make(changes)


def is_texts(recipe: Recipe) -> bool:
    """Return whether --data is one table without splits, so that only its texts are read and no labels."""
    divided = recipe.split_column is not None or recipe.validation_share is not None
    return recipe.data is not None and not divided and is_single(Path(recipe.data))


def choose_rows(resolved: ResolvedRecipe) -> Chosen:
    """Return the rows to learn from, and the rows to evaluate.

    The rows to learn from are the train split without texts that the evaluated split has too. If --data is one table
    without splits, they are all its texts, and nothing is evaluated.

    Raises:
        InputError: there are too few texts, or they cannot be read.
        UsageError: --max-drop is given, but there are no labelled rows to evaluate.
    """
    recipe = resolved.recipe
    alone = is_texts(recipe)
    rows = _texts_of(resolved, Path(str(recipe.data))) if alone else resolved.rows("train")
    check_texts(rows)
    evaluated = None if alone else _evaluated(resolved)
    if evaluated is None and recipe.max_drop is not None:
        raise UsageError(
            f"--max-drop {recipe.max_drop:g}: there are no labelled rows to evaluate. Give a folder with train.* and "
            "validation.* as --data, or leave --max-drop out."
        )
    split, kept = None if alone else resolved.evaluated_rows, rows
    if split is not None:  # all rows of the split: a later build evaluates those that --limit leaves out
        kept = rows.take(np.flatnonzero(~rows.among(set(split.text_digests))))
    if len(kept) < LEAST_TEXTS:
        out = f", without the {len(rows) - len(kept):,} that are also evaluated" if len(kept) < len(rows) else ""
        raise InputError(
            f"{rows.source}: only {len(kept):,} rows of text can be learnt from{out}. Give {LEAST_TEXTS:,} or more."
        )
    if len(kept) < len(rows):
        log.warning("%s: %d texts are also evaluated, so they are not learnt from", rows.source, len(rows) - len(kept))
    return Chosen(kept, len(rows) - len(kept), evaluated)


def _texts_of(resolved: ResolvedRecipe, file: Path) -> Rows:
    """Return all texts of a table as rows with empty labels."""
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
