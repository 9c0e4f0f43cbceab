"""What the tests of gRPC share."""

import pytest


@pytest.fixture(scope="module")
def wire(by_path):
    return by_path("grpc_wire")


@pytest.fixture(scope="module")
def double(by_path):
    return by_path("serve_double").Double
