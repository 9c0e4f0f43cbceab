"""The whole search in real time: a bundle on the GPU of a scripted libnvidia-ml (tests/nvml), with short windows."""

import json
import os
import subprocess

import pytest

from toolchain.bundle.build import build
from toolchain.recipe import Recipe
from toolchain.records.check import find_fault
from toolchain.records.clocks import SavedClocksRecord

SCENARIO = """clock real
device 0 6 GPU-11111111-aaaa Tesla T4
update_ms 0 20
clocks 0 300 1500 300
curve 0 300 30000
curve 0 600 20000
curve 0 1500 65000
"""

CODE = """
import ctypes, dataclasses, os, sys
# The loader read LD_LIBRARY_PATH when the fork server began, so a change of it has no effect here.
ctypes.CDLL(os.environ["NVML"], ctypes.RTLD_GLOBAL)
import toolchain.energy.clocks as clocks
from toolchain.cli import main
from toolchain.energy import protocol
from toolchain.energy.clocks import allowed
from toolchain.energy.compare import blocks, contenders

# The GPU is there for its meter and its clocks alone: what runs for it is ONNX Runtime on the processor.
find, open_runtime = clocks.find_target, contenders.open_runtime
clocks.find_target = lambda *words, **how: dataclasses.replace(find(*words, **how), device="cuda:0")
contenders.open_runtime = lambda *what, **choices: open_runtime(*what, **{**choices, "device": "cpu"})
allowed.is_administrator = lambda: True
for name, value in {"LEAST_WINDOW_S": 0.1, "LEAST_TICKS": 5, "LEAD_IN_S": 0.05}.items():
    setattr(protocol, name, value)
protocol.Protocol.length_s = lambda self, meter: 0.3
sys.exit(main(["clocks", "bundle", "--apply", "--json", "--sm-clocks", "300,600,1500", "--locked", "300,1500",
               "--energy-window", "5", "--energy-windows", "5", "--energy-warmup", "0.2"]))
"""


@pytest.mark.slow
def test_a_bundle_on_a_gpu(python, library, root, tiny_distilbert, sentences, tmp_path, begun):
    begun("fp32", tmp_path / "bundle")
    values = {
        "model": str(tiny_distilbert),
        "data": str(sentences),
        "precision": "fp32",
        "output": str(tmp_path / "bundle"),
    }
    build(Recipe.make(values))
    (tmp_path / "scenario").write_text(f"{SCENARIO}locked 0 300 1500\n")
    gpu = {
        "NVML": str(library),
        "LD_LIBRARY_PATH": str(library.parent),  # for the guardian
        "FAKENVML_SCENARIO": str(tmp_path / "scenario"),
        "FAKENVML_STATE": str(tmp_path / "state"),
        "PYTHONPATH": str(root),
    }
    done = subprocess.run([*python, "-c", CODE], cwd=tmp_path, env=os.environ | gpu, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert find_fault(record, SavedClocksRecord) is None
    # Which point is best, and with what figures, depends on what else the machine does: nothing of it is asserted.
    assert [one["name"] for one in record["stages"][0]["points"]] == ["as found", "300 MHz", "600 MHz", "1500 MHz"]
    assert record["restored"]["before"] == record["restored"]["after"]
    assert record["file"].startswith("bundle/results/energy/clocks-")
    assert (record["backend"], record["n"]) == ("ort", 40)
    values = memoryview((tmp_path / "state").read_bytes()).cast("I")
    assert tuple(values[2:5]) == (300, 1500, 70_000)
    # The clock is locked for each warm-up, for each window, and at the end. The power limit is never another one.
    warm_ups = sum(len(stage["points"]) for stage in record["stages"])
    assert values[1] == warm_ups + sum(len(block) for stage in record["stages"] for block in stage["blocks"]) + 1
