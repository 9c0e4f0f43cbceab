"""The command from its options to its record, on the scripted GPU: what it lists, refuses, sets and puts back."""

import contextlib
import io
import json
from types import SimpleNamespace

import pytest

import toolchain.energy.clocks
from tests.energy.clocks.test_contest import CLOCKS, SCENARIO, Simulated, curve, t4_w
from toolchain.cli.show.clocks import clocked
from toolchain.energy.clocks import Asked, allowed, find_clock
from toolchain.energy.clocks.allowed import Watch
from toolchain.energy.compare import blocks
from toolchain.energy.compare.contenders import Load
from toolchain.errors import MachineError, UsageError
from toolchain.meters.energy import open_meter
from toolchain.records.check import find_fault
from toolchain.records.clocks import SavedClocksRecord


class RowsOf872(list):
    digest = "0" * 64

    def sample(self, count, *, seed):
        return self


def on_gpu(nvml, monkeypatch, scenario="", *, administrator=True, device="cuda:0"):
    """Put a bundle's place a target on the scripted GPU, whose load and time are simulated."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml.library.parent))  # of the guardian
    monkeypatch.setenv("FAKENVML_SCENARIO", str(nvml.script))
    monkeypatch.setenv("FAKENVML_STATE", str(nvml.script.with_name("state")))
    nvml.load(f"{SCENARIO}{curve(t4_w)}{scenario}")
    load = Simulated(nvml, 0)
    recipe = SimpleNamespace(
        split="validation",
        reading={},
        seed=0,
        rate=None,
        energy_window=5.0,
        energy_windows=6,
        energy_warmup=10.0,
    )
    target = SimpleNamespace(
        bundle=None,
        backend="trt",
        variant="int8",
        device=device,
        remote=False,
        precision="int8",
        artefact={"file": "model.plan", "sha256": "0" * 64},
        folder=nvml.script.parent,
        resolved=SimpleNamespace(task=SimpleNamespace(name="sst2"), recipe=recipe),
    )
    one = contextlib.nullcontext({"trt int8": Load(None, [], 32)})
    module = toolchain.energy.clocks
    monkeypatch.setattr(module, "find_target", lambda *words, **how: target)
    monkeypatch.setattr(module, "load_rows", lambda *words, **how: RowsOf872())
    monkeypatch.setattr(module, "opened", lambda *words, **how: one)
    monkeypatch.setattr(module, "open_meter", lambda name: open_meter(name, clock=nvml.now, sleep=load.sleep))
    monkeypatch.setattr(blocks, "under_load", load.under_load)
    monkeypatch.setattr(allowed, "is_administrator", lambda: administrator)


def found(**asked):
    record = find_clock(None, {}, Asked(**asked), log=lambda line: None)
    with contextlib.redirect_stdout(io.StringIO()) as text:
        clocked(record)
    return record, text.getvalue()


def test_without_apply_nothing_is_set(nvml, monkeypatch):
    on_gpu(nvml, monkeypatch, "persistence 0 0\nprocesses 0 4242\n", administrator=False)
    record, text = found(power=True, points=3)
    assert nvml.setter_calls() == 0
    assert find_fault(record, SavedClocksRecord) is None
    assert [one["name"] for one in record["planned"]] == ["300 MHz", "945 MHz", "1590 MHz", "60 W", "65 W", "70 W"]
    assert (record["applied"], record["stages"], record["verdict"], record["file"]) == (False, [], None, None)
    assert record["supported_mhz"] == [*CLOCKS]
    assert (
        "not possible here: only an administrator (CAP_SYS_ADMIN) may set its clocks. Run the command with sudo" in text
    )
    assert "other processes use it (4242)" in text
    assert "note: persistence mode is off" in text
    assert "with --locked" in text
    assert "first process of its container" not in text
    with monkeypatch.context() as patch:
        patch.setattr(toolchain.energy.clocks.os, "getpid", lambda: 1)
        assert "first process of its container" in found()[1]


@pytest.mark.parametrize(
    ("scenario", "administrator", "message"),
    [
        ("", False, "administrator .*sudo, or in a container with --cap-add SYS_ADMIN; or let an administrator lock"),
        ("processes 0 4242,17\n", True, r"other processes .*17, 4242.*Wait until .*, or choose another GPU"),
        ("mig 0 1\n", True, r"\(MIG\).*nvidia-smi -i 0 -mig 0, or choose another GPU"),
        ("virtual 0 2\n", True, r"\(vGPU\).* without vGPU, or pass the whole GPU"),
        ("missing 0 nvmlDeviceGetComputeRunningProcesses_v3\n", True, "does not report which processes"),
    ],
)
def test_what_forbids_it_is_refused_with_the_ways_out(nvml, monkeypatch, scenario, administrator, message):
    on_gpu(nvml, monkeypatch, scenario, administrator=administrator)
    with pytest.raises(MachineError, match=f"^Tesla T4: .*{message}"):
        found(apply=True)
    assert nvml.setter_calls() == 0


def test_a_backend_on_the_processor_and_wrong_options_are_refused(nvml, monkeypatch):
    on_gpu(nvml, monkeypatch, device="cpu")
    with pytest.raises(MachineError, match="trt does not run on a GPU of this machine"):
        found(apply=True)
    on_gpu(nvml, monkeypatch)
    for asked, message in (
        ({"points": 1}, "--points 1: the number must be from 2"),
        ({"max_slowdown": 0.9}, "--max-slowdown 0.9: the ratio must be at least 1"),
        ({"sm_clocks": "601"}, "does not support 601 MHz"),
        ({"locked": "x"}, "--locked x"),
    ):
        with pytest.raises(UsageError, match=message):
            found(apply=True, **asked)
    assert nvml.setter_calls() == 0


def test_clocks_are_compared_and_the_lock_of_before_is_put_back(nvml, monkeypatch):
    on_gpu(nvml, monkeypatch, "locked 0 300 1590\n")
    record, text = found(apply=True, points=3, locked="300,1590")
    assert nvml.settings(0) == (300, 1590, 70_000)
    blocks = [block for stage in record["stages"] for block in stage["blocks"]]
    warm_ups = sum(len(stage["points"]) for stage in record["stages"])
    assert nvml.setter_calls() == warm_ups + sum(map(len, blocks)) + 1  # the last one puts the lock back
    assert (
        record["restored"]["before"]
        == record["restored"]["after"]
        == {"locked_mhz": [300, 1590], "power_limit_w": 70.0}
    )
    assert find_fault(record, SavedClocksRecord) is None
    with open(record["file"]) as file:
        assert json.load(file) == {key: value for key, value in record.items() if key != "file"}
    assert record["best"]["sm_mhz"] == 945
    assert "945 MHz: " in text
    assert "% less energy per row than as found, at 0.59" in text
    assert "ExecStart=/usr/bin/nvidia-smi -i GPU-11111111-aaaa -lgc 945,945\nExecStop=/usr/bin/nvidia-smi -i " in text
    assert "-pl" not in text
    limited = {**record, "best": {**record["best"], "power_limit_w": 60.0}}
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        clocked(limited)
    assert "-rgc\nExecStop=/usr/bin/nvidia-smi -i GPU-11111111-aaaa -pl 70\n" in shown.getvalue()
    assert (
        "settings before: locked from 300 to 1590 MHz, 70 W; now locked from 300 to 1590 MHz, 70 W (NVML cannot" in text
    )


def test_a_process_that_comes_before_the_clocks_are_set_is_refused(monkeypatch):
    monkeypatch.setattr(allowed.gpu_state, "process_ids", lambda device: {1, 99})
    with pytest.raises(MachineError, match=r"other processes use it \(1, 99\)"):
        Watch(SimpleNamespace(name="Tesla T4"))


def test_a_process_that_comes_ends_the_search(monkeypatch):
    pids = [{1}, {1}, {1, 99}]
    monkeypatch.setattr(allowed.gpu_state, "process_ids", lambda device: pids.pop(0))
    watch = Watch(SimpleNamespace(name="Tesla T4"))
    watch.check()
    with pytest.raises(MachineError, match=r"another process began to use it \(99\), so its clocks were restored"):
        watch.check()
