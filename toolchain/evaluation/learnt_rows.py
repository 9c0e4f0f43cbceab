"""The evaluated rows that a model learnt from in `toolchain shrink` or `heal`, which make its figures too good."""

from toolchain.bundle import Bundle
from toolchain.bundle.healed import STEP, graph_of, healed_graphs
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
        known = learnt_digests(target.bundle, healed=_is_healed(target, target.bundle))
    else:
        known = set(read_learnt(target.resolved.source.folder / OF_CHECKPOINT))
    return int(rows.among(known).sum())


def _is_healed(target: Target, bundle: Bundle) -> bool:
    """Return whether a target has the healed weights of its bundle, or of a stage of it.

    The checkpoint lacks them, also if PyTorch quantizes it, and so do engines with attention in plugins.
    """
    whole = BACKENDS[target.backend].runs == "checkpoint" or "plugin" in target.variant.split(".")
    steps = bundle.manifest["steps"]
    # A server does not say which graph it runs, so it may be a healed one.
    kept = STEP in steps and target.file is not None and graph_of(target.file) not in healed_graphs(steps)
    return target.precision == "int8" and not whole and not kept
