"""The original of a checkpoint that `toolchain shrink` made: what its results are compared with."""

import logging

from toolchain.bundle.resolved_recipe import bundled
from toolchain.checkpoint.model import Source, find_model
from toolchain.errors import ToolchainError
from toolchain.evaluation.target import Target
from toolchain.recipe.options import CONSENT

log = logging.getLogger(__name__)

# The name of this reference in a result.
NAME = "original-fp32"


def find_original(target: Target) -> Source | None:
    """Return the checkpoint that a bundle's checkpoint was shrunk from; None if it was not shrunk.

    None also if the original is not where it was, or has changed, with a warning: the shrunk one is the reference then.
    A hub id is looked up in the hub's cache alone.
    """
    record = target.bundle.manifest.get("shrink") if target.bundle else None
    if record is None:
        return None
    assert target.bundle
    teacher, recipe = record["teacher"], target.resolved.recipe
    consent = {key: getattr(recipe, key) for key in (*CONSENT, "ignore_unused")}
    try:
        pooling = bundled(target.bundle).pooling
        source = find_model(teacher["id"], **consent, pooling=pooling, download=False)
        if source.digests == teacher["sha256"]:
            return source
        why = f"{source.folder}: it has changed since {target.bundle.path} was shrunk from it."
    except ToolchainError as error:
        why = f"{target.bundle.path}: its original {teacher['id']} cannot be found. ({error})"
    log.warning("%s The shrunk checkpoint is the reference instead.", why)
    return None
