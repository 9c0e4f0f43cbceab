"""A build that is killed at any instant leaves the old bundle or the new one, whole."""

import contextlib
import os
import random
import subprocess
import time

import pytest

from toolchain.bundle import open_bundle

METHODS = ("mse", "percentile")


@pytest.fixture
def rebuild(python, root, tiny_distilbert, sentences, tmp_path, begun):
    """Return what starts a build by a method, in a process that has the libraries loaded: a kill falls into the build.

    Its standard output ends with the process.
    """
    begun("fp32", tmp_path / "bundle")  # every rebuild skips the export
    command = ["-m", "toolchain", "build", "-m", tiny_distilbert, "--data", sentences, "-o", tmp_path / "bundle"]
    command += ["--precision", "int8", "--calib-samples", 20, "--calib-method"]
    environment = os.environ | {"PYTHONPATH": str(root)}

    def start(method):
        return subprocess.Popen([*python, *map(str, command), method], env=environment, stdout=subprocess.PIPE)

    return start


@pytest.mark.parametrize(
    "kills", [pytest.param(2, marks=pytest.mark.short), pytest.param(50, marks=pytest.mark.stress)]
)
def test_sigkill_leaves_the_old_bundle_or_the_new_one(rebuild, tmp_path, kills):
    for method in METHODS:
        start = time.monotonic()
        with rebuild(method) as process:
            assert process.stdout.read()
        lasts_s = time.monotonic() - start
    generator = random.Random(0)
    for number in range(kills):
        with rebuild(METHODS[number % 2]) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(generator.uniform(0, 1.3 * lasts_s))
            process.kill()
            process.stdout.read()
        bundle = open_bundle(tmp_path / "bundle")  # with every digest checked
        assert bundle.manifest["calibration"]["method"] in METHODS
    with rebuild("minmax") as process:
        process.stdout.read()
    assert process.returncode == 0
    assert open_bundle(tmp_path / "bundle").manifest["calibration"]["method"] == "minmax"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
