"""The check of the data before a build: wrong columns, labels or splits are found before the first long step."""

import logging

from toolchain.bundle.resolved_recipe import ResolvedRecipe, find_overlap
from toolchain.data.labels import check_texts
from toolchain.data.rows import Rows
from toolchain.data.tables import MissingSplitError
from toolchain.errors import ToolchainError
from toolchain.records.calibration import OverlapRecord

log = logging.getLogger(__name__)

# Number of rows that are tokenized to count truncated rows: enough to find a fraction of 1 %, within a second.
CUT_ROWS = 2048


def check_data(resolved: ResolvedRecipe) -> None:
    """Read the rows of a build to find faults in them, and warn of truncated rows and of rows that two splits share.

    If the data is on this machine, the train split and the split to evaluate are read, even if the precision needs no
    rows; one of the two may be missing. From the hub, only the rows that the build itself needs are read.

    Raises:
        InputError: both splits are missing, a cell or a label cannot be read, or there are too few rows to calibrate
            with.
        ToolchainError: see errors.py.
    """
    recipe = resolved.recipe
    if resolved.has_local_rows:
        _check_splits(resolved)
    if recipe.max_drop is not None:
        resolved.head.read(resolved.rows(recipe.split))
    if "calibrate" in resolved.steps and (not recipe.calibration or recipe.gives_cache):
        _read_calibration_rows(resolved)
        overlap = resolved.overlap
        warn_of_overlap(overlap, resolved, left_out=True)


def _read_calibration_rows(resolved: ResolvedRecipe) -> None:
    recipe = resolved.recipe
    try:
        _ = resolved.holdout_rows if recipe.range_method == "auto" else resolved.calibration_rows
    except ToolchainError as error:
        if recipe.precision:
            raise
        text = f"{error} INT8, the default precision without a GPU, needs rows to calibrate with"
        raise type(error)(
            f"{text}. Give them with --data DIR, or choose --precision fp16, which needs none."
        ) from error


def _check_splits(resolved: ResolvedRecipe) -> None:
    names, missing = list(dict.fromkeys(("train", resolved.recipe.split))), []
    found = {}
    for split in names:
        try:
            found[split] = resolved.rows(split)
        except MissingSplitError as error:
            missing.append(error)
            continue
        resolved.head.read(found[split])
        check_texts(found[split])
        with found[split].placed():
            _warn_of_cut(resolved, found[split])
    if not found:
        raise missing[-1]
    if "calibrate" not in resolved.steps and len(found) == len(names) == 2:
        warn_of_overlap(find_overlap(*found.values()), resolved, left_out=False)


def _warn_of_cut(resolved: ResolvedRecipe, rows: Rows) -> None:
    """Warn if rows are longer than the truncation length. At most CUT_ROWS rows, drawn at random, are looked at."""
    sample = rows.sample(CUT_ROWS, seed=resolved.recipe.seed)
    cut = int(resolved.find_cut(sample.texts, resolved.encode(sample.texts).lengths).sum())
    if cut:
        log.warning(
            "%s: %d of %d%s rows are longer than --max-length %d tokens, so they are truncated",
            rows.source,
            cut,
            len(sample),
            " sampled" if len(sample) < len(rows) else "",
            resolved.max_length,
        )


def warn_of_overlap(overlap: OverlapRecord | None, resolved: ResolvedRecipe, *, left_out: bool) -> None:
    """Warn if some texts are in both the train split and the evaluated split.

    `left_out` tells whether the build calibrates without these rows, which the warning then says.
    """
    if not overlap:
        return
    split = resolved.recipe.split
    log.warning(
        "%d of %d train rows are also in %s%s. %d of %d %s rows (%.1f %%) are also in train, so a score on them says "
        "little about new rows.",
        overlap["left_out"],
        overlap["train_rows"],
        split,
        ", and are not used for calibration" if left_out else "",
        overlap["evaluated_in_train"],
        overlap["evaluated_rows"],
        split,
        100 * overlap["evaluated_in_train"] / overlap["evaluated_rows"],
    )
