"""Bundles that are served. They are made once, and tests only read them."""

import pytest

from toolchain.bundle.build import build
from toolchain.recipe import Recipe


@pytest.fixture(scope="module")
def fake(by_path):
    """The module http_fake.py."""
    return by_path("serve/http_fake")


@pytest.fixture
def service(fake):
    return fake.FakeService()


@pytest.fixture(scope="session")
def processes(by_path):
    """The module process.py."""
    return by_path("serve/process")


@pytest.fixture(scope="session")
def served_demo(processes, demo_bundle):
    """A real service of the built-in model with its default options."""
    with processes.running(demo_bundle) as found:
        yield found


@pytest.fixture(scope="session")
def pair_bundle(tiny, tmp_path_factory):
    """A tiny BERT that returns one number for two texts."""
    home = tmp_path_factory.mktemp("pairs")
    checkpoint = tiny.make_checkpoint(home / "model", "bert", labels=1)
    build(
        Recipe.make({"model": str(checkpoint), "task": "stsb", "precision": "fp32", "output": str(home / "pairs")}),
        engine=False,
    )
    return home / "pairs"
