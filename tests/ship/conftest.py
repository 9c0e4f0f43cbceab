"""Bundles to ship: the built-in model, and a tiny regression on pairs whose graph stands in for a plan."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from toolchain.bundle.writer import open_writer
from toolchain.ship.options import Options
from toolchain.ship.triton import ship

BUCKETS = (16, 32)
TENSORRT = "10.16.1.11"


@pytest.fixture(scope="session")
def pairs_bundle(pair_bundle, once):
    """Return a bundle of a random BERT for regression on pairs; its float16 graph also stands in for a plan."""
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    def fill(folder):
        shutil.copytree(pair_bundle, folder, dirs_exist_ok=True)  # so that it is exported once
        values = {"model": str(pair_bundle.parent / "model"), "task": "stsb", "precision": "fp16", "max_length": 32}
        build(Recipe.make(values | {"output": str(folder)}), engine=False)
        add_plan(folder, 75)

    return once("shipped-pairs", fill)


def add_plan(bundle, sm, *, tensorrt=TENSORRT, **changes):
    """Add a plan to a bundle as the engine step does; it is a copy of the typed graph, which a stand-in runs."""
    with open_writer(bundle) as made:
        manifest = made.old.manifest
        file = f"model.{manifest['precision']}.onnx"
        for name in manifest["steps"]:
            made.retain(name)
        starts = (1, *(end + 1 for end in BUCKETS[:-1]))
        record = {
            "schema": 1,
            "sm": sm,
            "tensorrt": tensorrt,
            "version_compatible": False,
            "layout": "padded",
            "precision": manifest["precision"],
            "calibration": None,
            "options": {},
            "graph": {"file": file, "sha256": manifest["artefacts"][file]},
            "inputs": [one["name"] for one in manifest["inputs"]],
            "profiles": [
                {"batch": [1, 4, 8], "length": [start, end, end]} for start, end in zip(starts, BUCKETS, strict=True)
            ],
            **changes,
        }
        folder = f"plans/sm{sm}-trt{tensorrt}"

        def run(place):
            (place / folder).mkdir(parents=True)
            shutil.copy(place / file, place / folder / "model.plan")
            record["plan_sha256"] = hashlib.sha256((place / file).read_bytes()).hexdigest()
            (place / folder / "plan.json").write_text(json.dumps(record))
            return record

        made.step(folder, {"plan": record}, run)
        keys = ("schema", "sha256", "created", "steps", "artefacts")
        made.finish({key: value for key, value in manifest.items() if key not in keys})


@pytest.fixture
def planned(pairs_bundle, tmp_path):
    """Return a function that copies the bundle with a plan and may add another plan."""

    def copy(sm=None, **changes):
        bundle = Path(shutil.copytree(pairs_bundle, tmp_path / "bundle"))
        if sm:
            add_plan(bundle, sm, **changes)
        return bundle

    return copy


@pytest.fixture(scope="session")
def shipped(demo_bundle, pairs_bundle, cascade_bundle, cascade_of_bundles, tmp_path_factory):
    """Return a repository with a model of each backend, and two cascades; tests only read it."""
    repository = tmp_path_factory.mktemp("shipped") / "models"
    ship(demo_bundle, repository, Options(name="sentiment", backend="python", max_batch=8, response_cache=True))
    ship(pairs_bundle, repository, Options(name="plan", backend="trt", queue=2, cuda_graphs=True, instances=2))
    ship(pairs_bundle, repository, Options(name="graph", backend="ort", max_batch=4, timeout_ms=60_000))
    ship(cascade_bundle, repository, Options(name="both", max_batch=16))
    ship(cascade_of_bundles, repository, Options(name="bundles", backend="ort", device="cpu", max_batch=16))
    return repository


@pytest.fixture(scope="session")
def server(triton, triton_environment, shipped, tmp_path_factory):
    """Return a running Triton that serves `shipped`."""
    with triton.serve(shipped, tmp_path_factory.mktemp("triton"), triton_environment) as running:
        yield running


@pytest.fixture
def repository(shipped, tmp_path):
    """Return a copy of `shipped` that a test may change."""
    return Path(shutil.copytree(shipped, tmp_path / "models"))
