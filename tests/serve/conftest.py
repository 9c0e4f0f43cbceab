"""Bundles that are served. They are made once, and tests only read them."""

import pytest


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
