"""The option `--reuse`: the exported graph is copied from another bundle of the same checkpoint."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from toolchain.base.files import sha256_json
from toolchain.bundle import MANIFEST, Bundle, manifests_below, open_bundle
from toolchain.errors import InputError
from toolchain.recipe import Recipe
from toolchain.records.bundle import ExportedGraph
from toolchain.records.check import find_fault

# The exported graph, and the file of its weights, which exists only if the graph is too large for a single file.
FILES = ("model.onnx", "model.onnx.data")


def bundles_at(place: Path) -> list[Bundle]:
    """Return the bundle in the folder `place`, or else all bundles below it that can be read and are not cascades.

    The digests of their files are not checked.

    Raises:
        InputError: there is no such folder, or the bundle in it cannot be read or has a language model.
        UsageError: the bundle in it is a cascade.
    """
    if not place.is_dir():
        raise InputError(
            f"--reuse {place}: there is no such folder. Give the folder of a bundle, or one with bundles below it."
        )
    if (place / MANIFEST).exists():
        bundle = open_bundle(place, check_files=False)
        bundle.require_one_model("--reuse")
        return [bundle]
    found = []
    for file in sorted(manifests_below(place)):
        with contextlib.suppress(InputError, OSError):
            found.append(open_bundle(file.parent, check_files=False))
    return [bundle for bundle in found if not bundle.is_cascade]


def take_graph(
    recipe: Recipe, folder: Path, inputs: Mapping[str, Any], *, log: Callable[[str], None]
) -> ExportedGraph | None:
    """Copy model.onnx from a bundle at `recipe.reuse` that was exported from the same checkpoint in the same way.

    The checkpoint, options and library versions must be equal. Only the truncation length may differ, because the graph
    does not depend on it. The caller compares the copied graph with the checkpoint.

    Args:
        recipe: the recipe of the new bundle.
        folder: where the graph is written.
        inputs: everything that the step `export` of the new bundle depends on.
        log: called with a line that says what was done.

    Returns:
        The record of the export of the copied graph; None if no graph was copied.

    Raises:
        InputError: see `bundles_at`.
    """
    if recipe.reuse is None:
        return None
    for bundle in bundles_at(Path(recipe.reuse)):
        if (record := _exported(bundle, inputs)) is None:
            continue
        try:
            for name in (name for name in FILES if name in bundle.manifest["artefacts"]):
                bundle.copy(name, folder / name)
        except (InputError, PermissionError) as error:
            log(f"export: the graph of {bundle.path} could not be copied, so another one is looked for: {error}")
            for name in FILES:
                (folder / name).unlink(missing_ok=True)
            continue
        log(f"export: copied the graph from {bundle.path}")
        return record
    log(
        f"export: no bundle at {recipe.reuse} has a graph of this checkpoint with the same options and library "
        "versions, so the checkpoint is exported"
    )
    return None


def _exported(bundle: Bundle, inputs: Mapping[str, Any]) -> ExportedGraph | None:
    """Return the record of a bundle's export; None if the export had other inputs, or if the record is incomplete."""
    step = bundle.manifest["steps"].get("export")
    if step is None or FILES[0] not in bundle.manifest["artefacts"]:
        return None
    same = sha256_json({**inputs, "max_length": bundle.manifest.get("max_length")})
    record: object = step.get("record")
    if step.get("inputs_sha256") != same or find_fault(record, ExportedGraph):
        return None
    return cast(ExportedGraph, record)
