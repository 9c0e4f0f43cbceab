"""Find the original checkpoint from which `toolchain shrink` made a bundle's checkpoint, to compare results with it."""

import logging

from toolchain.bundle.resolved_recipe import bundled
from toolchain.checkpoint.model import Source, find_model
from toolchain.errors import ToolchainError
from toolchain.evaluation.target import Target
from toolchain.recipe.options import CONSENT

log = logging.getLogger(__name__)

# Name of the FP32 original in a result that is compared with it.
NAME = "original-fp32"


def find_original(target: Target) -> Source | None:
    """Return the checkpoint that a bundle's checkpoint was shrunk from; None if it was not shrunk.

    The result is also None, with a warning, if the original cannot be found or has changed. Results are then compared
    with the shrunk checkpoint. An original from the hub is searched for only in the hub's cache, not downloaded.
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
        why = f"{source.folder}: this checkpoint has changed since {target.bundle.path} was shrunk from it."
    except ToolchainError as error:
        why = f"{target.bundle.path}: its original {teacher['id']} cannot be found. ({error})"
    log.warning("%s The shrunk checkpoint is the reference instead.", why)
    return None
