"""A process that is killed while it replaces weights in a file of their own leaves the old ones or the new ones.

This file is also the program of that process: SOURCE TARGET NUMBER STOP SWAPS.
"""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.base import files
from toolchain.bundle import open_bundle
from toolchain.bundle.writer import open_writer

# The functions in C that change a file or a folder. `renameat2` is not one of them, but those before and after it are.
OPERATIONS = {"fsync", "link", "mkdir", "open", "rename", "replace", "rmdir", "tofile", "unlink", "write"}


def largest(model):
    return max(model.graph.initializers.values(), key=lambda value: value.const_value.nbytes)


def write_weights(source, target, number, stop, *, swaps):
    """Replace a bundle by one whose largest weight is `number`; kill this process before its operation `stop`, from 0.

    With `swaps` false, two folders cannot be exchanged in one step, as on some file systems.
    """
    graph.MAX_BYTES = 4096  # so that the weights are in model.onnx.data
    if not swaps:
        files._renameat2_exchange = lambda *_: False
    model = graph.load(source)
    weight = largest(model)
    weight.const_value = ir.tensor(np.full_like(weight.const_value.numpy(), number), name=weight.name)
    left = stop

    def watch(_frame, event, function):
        nonlocal left
        if event == "c_call" and function.__name__ in OPERATIONS:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    def save(folder):
        graph.save(model, folder / "model.onnx")
        return {}

    sys.setprofile(watch)
    with open_writer(target) as writer:
        writer.step("export", {"number": number}, save)
        writer.finish({"precision": "fp32"})
    sys.setprofile(None)
    sys.stdout.write("done\n")


def test_a_later_step_reads_the_weights_of_a_step_that_was_skipped(begun, tmp_path, monkeypatch):
    model, sums = graph.load(begun("fp32", tmp_path / "source") / "model.onnx"), []
    monkeypatch.setattr(graph, "MAX_BYTES", 4096)  # after the build of the bundle, which other tests read too

    def save(folder):
        graph.save(model, folder / "model.onnx")
        return {}

    def read(folder):
        sums.append(float(largest(graph.load(folder / "model.onnx")).const_value.numpy().sum()))
        return {}

    for number in range(2):
        with open_writer(tmp_path / "bundle") as writer:
            writer.step("export", {}, save)
            writer.step("quantize", {"number": number}, read)
            writer.finish({"precision": "int8"})
    assert writer.skipped == ["export"]
    assert sums == [float(largest(model).const_value.numpy().sum())] * 2


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("every", [pytest.param(9, marks=pytest.mark.short), pytest.param(1, marks=pytest.mark.stress)])
def test_sigkill_between_two_operations_leaves_weights_of_their_own_file_whole(
    python, root, tmp_path, begun, every, swaps
):
    source, target = begun("fp32", tmp_path / "source") / "model.onnx", tmp_path / "made/bundle"
    target.parent.mkdir()
    held, environment = 0, os.environ | {"PYTHONPATH": str(root)}
    for number in itertools.count():
        stop = (number - 1) * every  # below 0, and never reached, for the first bundle
        arguments = map(str, (__file__, source, target, number, stop, int(swaps)))
        run = subprocess.run([*python, *arguments], env=environment, stdout=subprocess.PIPE, check=False)
        bundle = open_bundle(target)  # with every digest checked
        assert {"model.onnx", "model.onnx.data"} == bundle.manifest["artefacts"].keys()
        values = set(largest(graph.load(bundle.file("model.onnx"))).const_value.numpy().flat)
        assert values in ({held}, {number})
        (held,) = values
        if number and run.returncode == 0:
            break
    assert run.stdout == b"done\n"
    assert held == number > 5
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


if __name__ == "__main__":
    write_weights(*map(Path, sys.argv[1:3]), *map(int, sys.argv[3:5]), swaps=sys.argv[5] == "1")
