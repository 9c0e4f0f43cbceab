"""`eval --energy` as a user runs it: without meters, and on a scripted machine in real time."""

import json
import os
import subprocess

import pytest

from tests.forked.start import python
from toolchain.bundle.build import build
from toolchain.checkpoint.tokenize import batches_of
from toolchain.recipe import Recipe


@pytest.fixture(scope="module")
def bundle(tiny, sentences, tmp_path_factory, begun):
    home = tmp_path_factory.mktemp("energy")
    checkpoint = tiny.make_checkpoint(home / "checkpoint", "distilbert")
    begun("fp32", home / "bundle")
    build(
        Recipe.make(
            {"model": str(checkpoint), "data": str(sentences), "precision": "fp32", "output": str(home / "bundle")}
        )
    )
    return home / "bundle"


def toolchain(root, *arguments, **environment):
    command = [*python(), "-m", "toolchain", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(root)} | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def nothing_here():
    """Skip on a machine with energy counters."""
    from toolchain.meters.sources import open_sources

    with open_sources() as found:
        if found.sources:
            pytest.skip("this machine has energy counters")


@pytest.mark.usefixtures("nothing_here")
def test_without_meters_the_result_has_the_reason_and_the_exit_code_is_0(root, bundle):
    done = toolchain(root, "eval", bundle, "--energy", "--json")
    energy = json.loads(done.stdout)["energy"]
    assert done.returncode == 0
    assert (energy["status"], energy["reason"], energy["total_j"]) == ("unavailable", "rapl_absent", None)
    assert {name: part["reason"] for name, part in energy["components"].items()} == {
        "gpu_board": "no_nvml_library",
        "gpu_memory": "no_nvml_library",
        "cpu_package": "rapl_absent",
        "cpu_dram": "rapl_absent",
    }
    page = toolchain(root, "report", bundle).stdout
    assert "energy: not measured: this machine lacks a RAPL counter" in page
    assert "this machine lacks an NVIDIA driver" in page


@pytest.mark.usefixtures("nothing_here")
def test_required_energy_that_cannot_be_measured_exits_with_4(root, bundle):
    done = toolchain(root, "eval", bundle, "--require-energy", "--json")
    assert (done.returncode, done.stdout) == (4, "")
    assert "rapl_absent" in done.stderr
    assert "toolchain doctor" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--energy", "--energy-window", "4"], "--energy-window 4"),
        (["--rate", "10"], "only be used with --energy"),
        (["--energy", "--rate", "0"], "--rate 0"),
        (["--energy", "--energy-batch-sizes", "1,x"], "1,x"),
        (["--energy", "--pue", "0.5"], "--pue 0.5"),
        (["--energy", "--energy-windows", "0"], "--energy-windows 0"),
        (["--energy", "--carbon-intensity", "-1"], "--carbon-intensity -1"),
        (["--energy", "--energy-window", "nan"], "--energy-window nan"),
    ],
)
def test_wrong_options_are_refused(root, bundle, options, message):
    done = toolchain(root, "eval", bundle, *options)
    assert done.returncode == 2
    assert message in done.stderr


WHOLE = """
import ctypes, functools, os, sys, threading, time
from pathlib import Path
from toolchain.energy import evaluation, protocol
from toolchain.meters.energy import open_meter

# The loader read LD_LIBRARY_PATH when the fork server began, so a change of it has no effect here.
ctypes.CDLL(os.environ["NVML"], ctypes.RTLD_GLOBAL)
root, power_w = Path(sys.argv[1]), 90.0
begun, over = time.monotonic(), threading.Event()

def count():
    while not over.wait(0.002):
        beside = root / "beside"
        beside.write_text(str(round((time.monotonic() - begun) * power_w * 1e6) % 262_143_328_850))
        os.replace(beside, root / "intel-rapl:0/energy_uj")

threading.Thread(target=count, daemon=True).start()
evaluation.open_meter = functools.partial(open_meter, powercap=root)
evaluation.idle = protocol.idle = functools.partial(protocol.idle, seconds=2)
from toolchain.cli import main
code = main(["eval", sys.argv[2], "--require-energy", "--energy-window", "6", "--energy-windows", "1",
             "--energy-warmup", "0", "--json", "--carbon-intensity", "400"])
over.set()
sys.exit(code)
"""


@pytest.mark.slow
def test_a_whole_run_in_real_time_is_within_2_percent_of_the_truth(root, bundle, library, tmp_path):
    (tmp_path / "intel-rapl:0").mkdir()
    for name, value in (("name", "package-0"), ("energy_uj", 0), ("max_energy_range_uj", 262_143_328_850)):
        (tmp_path / "intel-rapl:0" / name).write_text(str(value))
    scenario = tmp_path / "scenario"
    scenario.write_text("device 0 6 GPU-11111111-aaaa Tesla T4\npower 0 0 33000\nprocesses 0 1\n")
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "NVML": str(library),
        "FAKENVML_SCENARIO": str(scenario),
    }
    done = subprocess.run(
        [*python(), "-c", WHOLE, str(tmp_path), str(bundle)],
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    energy = json.loads(done.stdout)["energy"]
    package, board = (energy["components"][name] for name in ("cpu_package", "gpu_board"))
    assert (energy["status"], energy["reason"]) == ("partial", "rapl_absent")  # of its memory
    assert package["method"] == "rapl"
    assert package["joules"] == pytest.approx(90 * energy["window_s"], rel=0.02)
    assert energy["total_j"] == package["joules"]
    assert (board["counted"], board["method"]) == (False, "nvml_counter")
    assert board["joules"] == pytest.approx(33 * energy["window_s"], rel=0.02)
    assert energy["per_inference_j"] * energy["inferences"] == pytest.approx(energy["total_j"])
    assert energy["net"]["reason"] in ("not_above_idle", None)
    assert energy["carbon"]["total_g"] == pytest.approx(energy["total_j"] / 3.6e6 * 400)
    assert energy["context"]["gpus"][0]["power_limit_w"] == 70
    assert energy["protocol"]["tick_ms"] == pytest.approx(100, rel=0.2)


def test_batches_of_a_size_hold_every_row_once(tokens_of):
    found = list(batches_of(tokens_of("distilbert", 21), 8))
    assert [len(batch) for batch in found] == [8, 8, 5]
    assert sorted(row for batch in found for row in batch) == list(range(21))
