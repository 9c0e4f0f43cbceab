"""A build that is killed at any instant leaves the old bundle or the new one, whole."""

import os
import random
import select
import signal
import sys
import time
from importlib import import_module

import pytest

from tests.forked.start import call
from toolchain.bundle import open_bundle
from toolchain.cli import main

METHODS = ("mse", "percentile")

# Its import starts a thread, which no fork has.
THREADED = "onnxruntime"


def fork(words, then=lambda: None):
    """Run a command line in a fork of this process, and then a function; return the fork's number."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = main(words)
            then()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return pid


def import_what_a_build_does(words):
    """Import the modules that a build loads, so that a kill of a fork falls into its work; return its seconds."""
    read, write = os.pipe()

    def tell():
        os.write(write, "\n".join(name for name in sys.modules if not name.startswith(THREADED)).encode())

    pid = fork(words, tell)
    os.close(write)
    with os.fdopen(read) as names:
        loaded = names.read().split()
    assert os.waitpid(pid, 0)[1] == 0
    for name in loaded:
        if name.startswith("toolchain"):
            import_module(name)
    start = time.monotonic()
    assert os.waitpid(fork([*words[:-1], METHODS[1]]), 0)[1] == 0
    return time.monotonic() - start


def kill_builds(words, folder, kills):
    """Kill builds at random instants; each makes another bundle than there is."""
    assert THREADED not in sys.modules
    lasts_s, generator = import_what_a_build_does([*words, METHODS[0]]), random.Random(0)
    method = METHODS[1]
    for _ in range(kills):
        pid = fork([*words, next(one for one in METHODS if one != method)])
        ended = os.pidfd_open(pid)
        select.select([ended], [], [], generator.uniform(0, 1.2 * lasts_s))
        os.kill(pid, signal.SIGKILL)  # it was not waited for, so the number is still its own
        os.waitpid(pid, 0)
        os.close(ended)
        bundle = open_bundle(folder / "bundle")  # with every digest checked
        method = bundle.manifest["calibration"]["method"]
        assert method in METHODS
    assert os.waitpid(fork([*words, "minmax"]), 0)[1] == 0
    assert open_bundle(folder / "bundle").manifest["calibration"]["method"] == "minmax"
    assert [path.name for path in folder.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    "kills", [pytest.param(2, marks=pytest.mark.short), pytest.param(50, marks=pytest.mark.stress)]
)
def test_sigkill_leaves_the_old_bundle_or_the_new_one(tiny, sentences, tmp_path, kills):
    model, home = tiny.make_checkpoint(tmp_path / "model", n_layers=1), tmp_path / "home"  # as many steps in less time
    words = ["build", "-m", model, "--data", sentences, "-o", home / "bundle", "--precision", "int8"]
    words += ["--calib-samples", 20, "--calib-method"]
    call(kill_builds, {"words": list(map(str, words)), "folder": home, "kills": kills})
