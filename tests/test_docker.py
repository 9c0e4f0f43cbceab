"""The image's versions agree with each other and with what the tests run against; it runs as nobody special."""

import re

import pytest
import yaml


@pytest.fixture
def dockerfile(root):
    return (root / "docker/Dockerfile").read_text()


@pytest.fixture
def services(root):
    return yaml.safe_load((root / "docker/compose.yaml").read_text())["services"]


def test_one_tensorrt_for_package_bindings_libraries_and_tests(root, dockerfile, services):
    pinned = re.findall(r'"(tensorrt-cu12[a-z-]*)==\$\{TENSORRT\}"', dockerfile)
    assert sorted(pinned) == ["tensorrt-cu12", "tensorrt-cu12-bindings", "tensorrt-cu12-libs"]
    built = {service["build"]["args"]["TENSORRT"] for service in services.values()}
    tested = set(re.findall(r"tensorrt-cu12-bindings==([\d.]+)", (root / "Makefile").read_text()))
    assert built == tested
    assert re.search(r"ARG TENSORRT=(.*)", dockerfile)[1] in tested
    assert {service["image"].partition("trt")[2] for service in services.values()} == tested


def test_everything_it_is_made_from_has_a_version(dockerfile):
    images = [line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM")]
    assert images
    assert all("${CUDA}" in image and "latest" not in image for image in images)
    assert re.search(r"pycuda==[\d.]+", dockerfile)


def test_it_runs_without_rights(dockerfile, services):
    last = [line for line in dockerfile.splitlines() if line.startswith(("USER", "ENTRYPOINT"))]
    assert last == ["USER toolchain", 'ENTRYPOINT ["toolchain"]']
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_what_it_copies_is_there(root, dockerfile):
    for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE):
        *sources, _ = line.split()
        assert [source for source in sources if not (root / source).exists()] == []


def test_every_service_has_the_gpu_and_accepts(services):
    for service in services.values():
        assert service["command"][0] == "accept"
        devices = service["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
