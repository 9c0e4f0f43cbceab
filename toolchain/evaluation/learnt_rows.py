"""The evaluated rows that a model learnt from in `toolchain shrink` or `heal`, which flatter its figures."""

from toolchain.bundle.learnt import OF_CHECKPOINT, learnt_digests, read_learnt
from toolchain.data.rows import Rows
from toolchain.evaluation.target import Target
from toolchain.recipe.tables import BACKENDS


def learnt_rows(target: Target, rows: Rows) -> int:
    """Return the number of rows that the model of a target learnt from.

    Raises:
        InputError: the list of these rows is broken.
    """
    if target.bundle:
        known = learnt_digests(target.bundle, healed=_is_healed(target))
    else:
        known = set(read_learnt(target.resolved.source.folder / OF_CHECKPOINT))
    return int(rows.among(known).sum())


def _is_healed(target: Target) -> bool:
    """Return whether a target has the healed weights of its bundle, if there are any.

    The checkpoint lacks them, also if PyTorch quantizes it, and so do engines with attention in plugins.
    """
    whole = BACKENDS[target.backend].runs == "checkpoint" or "plugin" in target.variant.split(".")
    return target.precision == "int8" and not whole
