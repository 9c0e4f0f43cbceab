"""`--reuse`: the exported graph of another bundle of the same checkpoint, in place of an export."""

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

# The graph, and its weights where one file does not hold both.
FILES = ("model.onnx", "model.onnx.data")


def bundles_at(place: Path) -> list[Bundle]:
    """Return the bundle at `place`, or those below it that can be read. Digests of their files are not checked.

    Raises:
        InputError: there is no such folder, or the bundle at `place` cannot be read or is that of a language model.
        UsageError: the bundle at `place` is a cascade.
    """
    if not place.is_dir():
        raise InputError(f"--reuse {place}: no such folder. Give a bundle, or a folder with bundles.")
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
    """Copy the graph of a bundle at `recipe.reuse` whose export had these inputs; return its record, or None.

    Only the length of rows may differ, which the graph does not depend on. The caller compares the graph with the
    checkpoint.

    Args:
        recipe: the recipe of the new bundle.
        folder: where the graph is written.
        inputs: those of the step `export`.
        log: takes one line that says what was done.

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
            log(f"export: the graph of {bundle.path} could not be copied: {error}")
            for name in FILES:
                (folder / name).unlink(missing_ok=True)
            continue
        log(f"export: copied the graph of {bundle.path}")
        return record
    log(f"export: no bundle at {recipe.reuse} has a graph of this checkpoint, made with these options and versions")
    return None


def _exported(bundle: Bundle, inputs: Mapping[str, Any]) -> ExportedGraph | None:
    """Return the record of a bundle's graph; None if its export had other inputs, or is not recorded."""
    step = bundle.manifest["steps"].get("export")
    if step is None or FILES[0] not in bundle.manifest["artefacts"]:
        return None
    same = sha256_json({**inputs, "max_length": bundle.manifest.get("max_length")})
    record: object = step.get("record")
    if step.get("inputs_sha256") != same or find_fault(record, ExportedGraph):
        return None
    return cast(ExportedGraph, record)
