"""The parsed files of docker/."""

import re

import pytest
import yaml


@pytest.fixture
def dockerfile(root):
    return (root / "docker/Dockerfile").read_text()


@pytest.fixture
def stages(dockerfile):
    """Return the name of each stage -> its lines."""
    return {text.split("\n")[0].split()[-1]: text for text in re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]}


@pytest.fixture
def services(root):
    return yaml.safe_load((root / "docker/compose.yaml").read_text())["services"]


@pytest.fixture
def manifests(root):
    files = sorted((root / "docker/kubernetes").glob("*.yaml"))
    return [found for file in files for found in yaml.safe_load_all(file.read_text())]
