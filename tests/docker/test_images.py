"""Images and the compose file agree with each other and with the tests, and nothing runs as root."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_linter_finds_nothing(root):
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not linter:
        pytest.skip("hadolint is not installed")
    command = [linter, "--config", root / "docker/.hadolint.yaml", "--no-color", root / "docker/Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""


def test_package_bindings_libraries_and_tests_have_one_version_of_tensorrt(root, dockerfile, services):
    pinned = re.findall(r'"(tensorrt-cu12[a-z-]*)==\$\{TENSORRT\}"', dockerfile)
    assert sorted(pinned) == ["tensorrt-cu12", "tensorrt-cu12-bindings", "tensorrt-cu12-libs"]
    builders = [service for service in services.values() if service["build"]["target"] == "builder"]
    built = {service["build"]["args"]["TENSORRT"] for service in builders}
    tested = set(re.findall(r"tensorrt-cu12-bindings==([\d.]+)", (root / "Makefile").read_text()))
    assert built == tested
    assert re.search(r"ARG TENSORRT=(.*)", dockerfile)[1] in tested
    assert {service["image"].partition("trt")[2] for service in builders} == tested


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("10.16.1.11-1+cuda13.2", ["tensorrt-cu13==10.16.1.11", "tensorrt-cu13-bindings==10.16.1.11"]),
        ("10.13.2.6-1+cuda12.9", ["tensorrt-cu12==10.13.2.6", "tensorrt-cu12-bindings==10.13.2.6"]),
        ("", None),
    ],
)
def test_the_engine_is_built_with_the_tensorrt_of_its_server(root, tmp_path, found, expected):
    query = tmp_path / "dpkg-query"
    query.write_text(f"#!/bin/sh\necho '{found}'\n")
    query.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ["bash", root / "docker/server_tensorrt.sh"]
    done = subprocess.run(script, env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == (expected is not None)
    assert done.stdout.split() == (expected or [])
    assert expected or "TRITON=" in done.stderr


def test_each_source_of_an_image_has_a_version(dockerfile, stages, services):
    images = [line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM")]
    assert len(images) == 6
    assert all("${" in image for image in images if image not in stages)
    given = re.findall(r"^ARG (\w+)=\S", dockerfile, re.MULTILINE)
    assert {"CUDA", "UBUNTU", "PYTHON", "TRITON"} <= set(given)
    assert "latest" not in dockerfile
    assert re.search(r"pycuda==[\d.]+", dockerfile)
    version = re.search(r"ARG TRITON=(\S+)", dockerfile)[1]
    assert services["triton"]["build"]["args"]["TRITON"] == version
    assert services["triton"]["image"].endswith(f":{version}")


def test_the_server_has_the_versions_of_tokenizers_and_runtime_of_the_tests(root, stages):
    constraints = (root / "constraints.txt").read_text().split()
    pinned = re.findall(r"(?:tokenizers|onnxruntime)==\S+", stages["triton"])
    assert len(pinned) == 2
    assert set(pinned) <= set(constraints)


def test_services_do_not_require_each_others_variables(root):
    assert ":?" not in (root / "docker/compose.yaml").read_text()  # compose fills in the whole file, whatever is run


def test_containers_run_without_privileges(stages, services):
    for name, lines in stages.items():
        users = re.findall(r"^USER (\S+)", lines, re.MULTILINE)
        assert name == "wheels" or users[-1] == "10001"
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_servers_are_local_and_read_only(services):
    for name in ("triton", "triton-gpu", "service"):
        assert services[name]["read_only"]
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
        assert all(volume.endswith(":ro") for volume in services[name]["volumes"])


def test_copied_files_exist(root, dockerfile):
    for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE):
        *sources, _ = line.split()
        assert [source for source in sources if not (root / source).exists()] == []


def test_each_builder_has_the_gpu_and_runs_accept(services):
    for name in ("trt10", "trt11"):
        assert services[name]["command"][0] == "accept"
    for name in ("trt10", "trt11", "triton-gpu"):
        devices = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_triton_with_and_without_a_gpu_is_one_image(services):
    assert "deploy" not in services["triton"]
    assert services["triton-gpu"] == services["triton"] | {"deploy": services["trt10"]["deploy"]}


def test_the_documented_docker_commands_name_existing_things(root, services, stages):
    """The services, stages and files that README, guides and the compose file name in `docker` commands."""
    files = [root / "README.md", root / "CHANGELOG.md", *root.glob("docs/**/*.md"), *root.glob("docker/*")]
    texts = [file.read_text() for file in files if file.is_file()]
    lines = [line for text in texts for line in re.findall(r"docker (?:compose|build) [^`\n#]*", text)]
    named = [line.split()[-1] for line in lines if "compose -f docker/compose.yaml" in line]
    assert {"triton", "triton-gpu", "service", "trt10"} <= set(named) <= services.keys()
    targets = {found for line in lines for found in re.findall(r"--target (\S+)", line)}
    assert {"service-trt", "triton-builder"} <= targets <= stages.keys()
    assert all((root / file).exists() for line in lines for file in re.findall(r"-f (\S+)", line))


def test_the_compose_file_follows_its_schema(root):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    for file in (root / "docker/compose.yaml", root / "toolchain/ship/image/compose.yaml"):
        done = subprocess.run([*command, file], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_docker_compose_reads_the_file(root):
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("there is no docker compose here")
    for name in ("triton", "triton-gpu", "service", "trt10"):
        command = [docker, "compose", "-f", root / "docker/compose.yaml", "config", "--quiet", name]
        assert subprocess.run(command, capture_output=True, text=True).stderr == ""


def test_each_server_has_a_health_check(stages):
    for name in ("service", "service-trt", "triton"):
        assert "/v2/health/ready" in re.search(r"HEALTHCHECK .*\n.*", stages[name])[0]
