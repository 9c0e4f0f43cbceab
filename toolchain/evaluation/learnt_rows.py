"""The evaluated rows that `toolchain shrink` or `toolchain heal` used to train or tune the model.

On such rows a model's metrics are too good, so `eval` counts them and says so.
"""

from toolchain.bundle import Bundle
from toolchain.bundle.healed import STEP, graph_of, healed_graphs
from toolchain.bundle.learnt import OF_CHECKPOINT, learnt_digests, read_learnt
from toolchain.data.rows import Rows
from toolchain.evaluation.target import Target
from toolchain.recipe.tables import BACKENDS


def learnt_rows(target: Target, rows: Rows) -> int:
    """Return how many of `rows` were used to train or tune the model of a target.

    Raises:
        InputError: the list of these rows, in the bundle or beside the checkpoint, is damaged.
    """
    if target.bundle:
        known = learnt_digests(target.bundle, healed=_is_healed(target, target.bundle))
    else:
        known = set(read_learnt(target.resolved.source.folder / OF_CHECKPOINT))
    return int(rows.among(known).sum())


def _is_healed(target: Target, bundle: Bundle) -> bool:
    """Return whether a target may run weights that `toolchain heal` changed, in its own model or in a first stage.

    Only INT8 graphs and engines have healed weights. The checkpoint lacks them, even if PyTorch quantizes it, and so do
    engines whose attention is computed by plugins.
    """
    whole = BACKENDS[target.backend].runs == "checkpoint" or "plugin" in target.variant.split(".")
    steps = bundle.manifest["steps"]
    # For a server `file` is None: it does not say which graph it runs, so the graph may be a healed one.
    kept = STEP in steps and target.file is not None and graph_of(target.file) not in healed_graphs(steps)
    return target.precision == "int8" and not whole and not kept
