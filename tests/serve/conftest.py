"""Bundles that are served. They are made once, and tests only read them."""

import shutil
import subprocess

import pytest

from toolchain.serve.tls import Tls


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
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost, and its key."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out certificate.pem"
    name = ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *command.split(), *name], cwd=folder, check=True, capture_output=True)
    return Tls(folder / "certificate.pem", folder / "key.pem")
