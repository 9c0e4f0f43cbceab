"""Bundles of the real checkpoints, each built once."""

import itertools
import shutil

import pytest

from tests.shared.checks import predictions
from toolchain.bundle.build import build
from toolchain.recipe import Recipe

# Train rows of stsb: enough for 512 calibration rows and nearly as many hold-out rows. The others have all of theirs:
# few labels change, so a choice between classifiers needs a large pool of hold-out rows.
TRAIN_ROWS = 1000


@pytest.fixture(scope="session")
def data(shared, once):
    """Return a function from a task to the folder of its rows: every validation row, and the first train rows."""

    def find(task):
        whole = shared(f"glue/{task}")

        def fill(folder):
            shutil.copy(whole / "validation.tsv", folder)
            with (whole / "train.tsv").open(encoding="utf-8") as rows:
                first = "".join(itertools.islice(rows, TRAIN_ROWS + 1))
            (folder / "train.tsv").write_text(first, encoding="utf-8")

        return once(f"rows-{task}", fill) if task == "stsb" else whole

    return find


@pytest.fixture
def cache_home(monkeypatch, tmp_path):
    """The user's cache, in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="session")
def in_pytorch(real_export):
    """Return a function from a task to the predictions of its checkpoint in float32."""
    return lambda task: predictions(real_export(task), backend="torch")


@pytest.fixture(scope="module")
def made(shared, data, demo_bundle, real_export, tmp_path_factory):
    """Return a function from a task and changes to the recipe to a bundle."""
    bundles = {}

    def make(task, **changes):
        key = (task, *changes.items())
        if key not in bundles:
            target = tmp_path_factory.mktemp(task) / "bundle"
            values = {"model": task, "task": task, "output": str(target)}
            if task == "demo":
                exported = demo_bundle
            else:
                exported = real_export(task)
                values |= {"model": str(shared(f"models/distilbert-l6-h384-{task}")), "data": str(data(task))}
            shutil.copytree(exported, target)
            build(Recipe.make(values | changes))
            bundles[key] = target
        return bundles[key]

    return make
