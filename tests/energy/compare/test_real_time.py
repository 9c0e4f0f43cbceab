"""The whole comparison in real time: two bundles on the GPU of a scripted libnvidia-ml (tests/nvml)."""

import json
import os
import subprocess

import pytest

from toolchain.bundle.build import build
from toolchain.recipe import Recipe

SCENARIO = "clock real\ndevice 0 6 GPU-11111111-aaaa Tesla T4\nupdate_ms 0 20\npower 0 0 60000\n"

CODE = """
import ctypes, dataclasses, json, os, sys
# The loader read LD_LIBRARY_PATH when the fork server began, so a change of it has no effect here.
ctypes.CDLL(os.environ["NVML"], ctypes.RTLD_GLOBAL)
from pathlib import Path
from toolchain.energy.compare import compare_energy, contenders, judge
from toolchain.cli.show.pairs import compared_energy

# The GPU is there for its meter alone: what runs for it is ONNX Runtime on the processor.
find, open_runtime = contenders.find_target, contenders.open_runtime
contenders.find_target = lambda changes, place, **how: dataclasses.replace(find(changes, place, **how), device="cuda:0")
contenders.open_runtime = lambda *what, **choices: open_runtime(*what, **{**choices, "device": "cpu"})

changes = {"device": "cpu", "energy_window": 5, "energy_windows": 2, "energy_warmup": 1, "require_energy": True}
record = compare_energy([Path(place) for place in sys.argv[1:]], ["ort"], changes,
                 log=lambda line: print(line, file=sys.stderr))
judge(record)
print(json.dumps(record, allow_nan=False))
sys.stdout = sys.stderr
compared_energy(record)
"""


@pytest.fixture
def gpu(library, root, tmp_path):
    """Return the environment of a process that sees a scripted GPU of 60 W."""
    (tmp_path / "scenario").write_text(SCENARIO)
    return os.environ | {
        "NVML": str(library),
        "FAKENVML_SCENARIO": str(tmp_path / "scenario"),
        "PYTHONPATH": str(root),
    }


@pytest.mark.slow
def test_two_bundles_on_a_gpu(gpu, python, tiny_distilbert, sentences, tmp_path):
    for name in ("one", "other"):
        build(
            Recipe.make(
                {
                    "model": str(tiny_distilbert),
                    "data": str(sentences),
                    "precision": "fp32",
                    "max_length": {"one": 16, "other": 32}[name],
                    "output": str(tmp_path / name),
                }
            )
        )
    done = subprocess.run([*python, "-c", CODE, "one", "other"], cwd=tmp_path, env=gpu, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [sorted(block) for block in record["blocks"]] == [["one: ort fp32.cpu", "other: ort fp32.cpu"]] * 2
    for contender in record["contenders"]:
        assert contender["mean_power_w"] == pytest.approx(60, rel=0.02)
        assert contender["counter_to_integral"] == pytest.approx(1, rel=0.02)
        assert [window["accepted"] for window in contender["windows"]] == [True, True]
        assert contender["per_inference_j"] * contender["throughput_per_s"] == pytest.approx(60, rel=0.02)
    (found,) = record["comparisons"]
    assert found["ratio"] * found["throughput_ratio"] == pytest.approx(found["mean_power_ratio"])
    assert (found["verdict"], found["reason"]) == ("not resolved", "too_few_blocks")
    assert record["components"]["gpu_board"] == {"method": "nvml_counter", "reason": None, "detail": None}
    assert json.loads((tmp_path / record["file"]).read_text())["kind"] == "energy_comparison"
    assert record["file"].startswith("eval/results/energy/sst2-validation-")
    assert "block 2 of 2: " in done.stderr
    assert "Energy, sst2 validation, 40 rows: 2 blocks of 5 s" in done.stderr
