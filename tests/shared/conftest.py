"""Bundles of the real checkpoints, each built once; those of one task share its export."""

import shutil

import pytest

from toolchain.bundle.build import build
from toolchain.recipe import Recipe


@pytest.fixture(scope="module")
def made(shared, tmp_path_factory):
    """Return a function from a task and changes to the recipe to a bundle."""
    bundles, first = {}, {}

    def make(task, **changes):
        key = (task, *changes.items())
        if key not in bundles:
            target = tmp_path_factory.mktemp(task) / "bundle"
            if task in first:
                shutil.copytree(first[task], target)  # so that the model is exported once
            values = {"model": task, "task": task}
            if task != "demo":
                values["model"] = str(shared(f"models/distilbert-l6-h384-{task}"))
                values["data"] = str(shared(f"glue/{task}"))
            build(Recipe.make({**values, "output": str(target), **changes}))
            first.setdefault(task, target)
            bundles[key] = target
        return bundles[key]

    return make
