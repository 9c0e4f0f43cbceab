"""The printed command and the image's entry point pass all requirements of a repository to Triton."""

import os
import shlex
import shutil
import subprocess

import pytest
import yaml

from toolchain.ship.launch import OWN, STOCK
from toolchain.ship.options import Options
from toolchain.ship.triton import ship

CACHE = "--cache-config=local,size=268435456"
COMPLETE = "--disable-auto-complete-config"
COMPATIBLE = "--backend-config=tensorrt,version-compatible=true"


@pytest.fixture
def started(tmp_path):
    """Return a function that runs a command with stand-ins for pip and tritonserver, and returns their arguments."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("pip", "tritonserver"):
        (programs / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/{name}.log\n')
        (programs / name).chmod(0o755)

    def run(*command, **variables):
        seen = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"} | variables
        subprocess.run(command, env=seen, check=True, cwd=tmp_path)
        return {file.stem: file.read_text().split() for file in tmp_path.glob("*.log")}

    return run


def words(done):
    return shlex.split(done["start"]["line"])


def test_a_stock_image_gets_the_packages_and_arguments_of_all_models(demo_bundle, started, tmp_path):
    repository = tmp_path / "models"
    ship(demo_bundle, repository, Options(name="first", response_cache=True))
    done = ship(demo_bundle, repository, Options(name="second", backend="ort", device="cpu"))
    *_, shell, flag, script = words(done)
    needed = tmp_path / "needed.txt"
    script = script.replace("/tmp/needed.txt", str(needed)).replace("/models", str(repository))
    found = started(shell, flag, script)
    assert found["pip"] == ["install", "--quiet", "-r", str(needed)]
    lines = needed.read_text().split()
    assert sorted(set(lines)) == lines
    assert [line.partition("==")[0] for line in lines] == ["numpy<2", "onnxruntime", "tokenizers"]
    assert found["tritonserver"] == [f"--model-repository={repository}", CACHE, COMPLETE]  # a cache for the first


def test_our_own_image_needs_no_packages_and_reads_the_arguments(root, repository, pairs_bundle, started):
    done = ship(pairs_bundle, repository, Options(name="plan", backend="trt"))
    assert words(done)[-1] == OWN
    assert "pip" not in done["start"]["line"]
    (first, *flags) = started("sh", root / "docker/serve_repository.sh", "--http-port=8080", MODELS=str(repository))[
        "tritonserver"
    ]
    assert first == f"--model-repository={repository}"
    assert flags[:2] == [CACHE, COMPLETE]
    assert flags[-1] == "--http-port=8080"
    assert [one.partition("=")[0] for one in flags[2:-1]] == ["--http-restricted-api", "--grpc-restricted-protocol"]


def test_the_key_of_the_closed_endpoints_changes_at_each_start(root, shipped, started):
    keys = {
        tuple(started("sh", root / "docker/serve_repository.sh", MODELS=str(shipped))["tritonserver"][-2:])
        for _ in range(2)
    }
    assert len(keys) == 2
    assert all(len(one.rpartition("admin=")[2]) == 32 for pair in keys for one in pair)


def test_the_arguments_for_kserve_start_a_real_triton(root, triton, triton_environment, shipped, tmp_path):
    runtime, _ = yaml.safe_load_all((root / "docker/kubernetes/kserve.yaml").read_text())
    (container,) = runtime["spec"]["containers"]
    first, *rest = container["args"]
    shutil.copytree(shipped / "sentiment_decoder", tmp_path / "models/sentiment_decoder")
    with triton.serve(tmp_path / "models", tmp_path, triton_environment, *rest) as server:
        assert server.get("/v2/models/sentiment_decoder")["versions"] == ["1"]
        assert "GRPCInferenceService" not in server.log.read_text()
    assert first == "serve_repository"


@pytest.mark.parametrize(
    ("options", "changes", "flags"),
    [
        ({}, {}, [COMPLETE]),
        ({"response_cache": True}, {}, [COMPLETE, CACHE]),
        ({"tensorrt": "11.4.0.106"}, {"tensorrt": "11.4.0.106", "version_compatible": True}, [COMPLETE, COMPATIBLE]),
    ],
)
def test_the_arguments_depend_on_options_and_plans(planned, tmp_path, options, changes, flags):
    bundle = planned(75, **changes) if changes else planned()
    options = {"tensorrt": "10.16.1.11"} | options if changes else options
    done = ship(bundle, tmp_path / "r", Options(name="m", **options))
    assert done["start"]["flags"] == flags
    assert (tmp_path / "r/m/tritonserver.txt").read_text().splitlines() == flags


def test_the_command_serves_the_other_models_too(shipped, repository, demo_bundle, tmp_path):
    alone = words(ship(demo_bundle, tmp_path / "alone", Options(name="m", backend="python")))
    beside = words(ship(demo_bundle, repository, Options(name="m", backend="python")))
    assert STOCK in alone
    assert "--gpus=all" not in alone
    assert beside[-1] == OWN  # for the plan that is there
    assert "--gpus=all" in beside
    assert f"{repository}:/models:ro" in beside
