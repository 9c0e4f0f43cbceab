"""The guardian: whatever ends a process that set a GPU, the settings are those of before."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.nvml.scripted import ScriptedNvml
from toolchain.errors import MachineError
from toolchain.meters import guardian
from toolchain.meters.settings import Settings, is_administrator

T4 = "clock real\ndevice 0 6 GPU-11111111-aaaa Tesla T4\nclocks 0 300 1590 15\n"
UNLOCKED, LOCKED = (0, 0, 70_000), (300, 900, 70_000)

# Sets a GPU again and again, and ends in one of several ways in the middle.
CODE = """
import os, signal, sys
from toolchain.meters.guardian import guarded
from toolchain.meters.nvml import all_devices, open_nvml
from toolchain.meters.settings import Settings, read_settings

way, locked = sys.argv[1], (300, 900) if sys.argv[2] == "locked" else None
with open_nvml():
    (gpu,) = all_devices()
    with guarded(gpu, read_settings(gpu, locked)) as found:
        found.change(Settings((600, 600), 62_000))
        if way == "guardian":
            found.process.kill()
            found.process.wait()
        elif way == "exception":
            raise ValueError("in the middle")
        elif way.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, way))
            signal.pause()
        for mhz in range(300, 1591, 15):
            found.change(Settings((mhz, mhz), 70_000))
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
print(found.after)
"""


@pytest.fixture
def gpu(library, root, tmp_path, monkeypatch):
    """Return what runs a program on a scripted GPU, and the library that reads its settings afterwards."""
    monkeypatch.setenv("FAKENVML_STATE", str(tmp_path / "state"))
    driver = {"LD_LIBRARY_PATH": str(library.parent), "FAKENVML_SCENARIO": str(tmp_path / "scenario")}

    def run(scenario, *words):
        (tmp_path / "scenario").write_text(T4 + scenario)
        done = subprocess.run(  # returns when the guardian has ended too: it shares stderr
            [sys.executable, "-c", CODE, *words],
            env=os.environ | driver | {"PYTHONPATH": str(root)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done, settings(tmp_path / "state")

    return run


def settings(state):
    """Return lock and limit in the state that the processes share: after the two counters, the first GPU's."""
    values = memoryview(state.read_bytes()).cast("I")
    return values[2], values[3], values[4]


WAYS = [
    ("normal", "unlocked", 0),
    ("normal", "locked", 0),
    ("exception", "locked", 1),
    ("SIGINT", "unlocked", 1),
    ("SIGTERM", "locked", -signal.SIGINT),  # as Ctrl-C, so that this process waits until the settings are back
    ("SIGKILL", "unlocked", -signal.SIGKILL),
    ("SIGKILL", "locked", -signal.SIGKILL),
    ("guardian", "locked", 1),
]


@pytest.mark.parametrize(("way", "lock", "code"), WAYS)
def test_whatever_ends_the_process_the_settings_are_those_of_before(gpu, way, lock, code):
    done, found = gpu("locked 0 300 900\n" if lock == "locked" else "", way, lock)
    assert found == (LOCKED if lock == "locked" else UNLOCKED)
    assert done.returncode == (-signal.SIGINT if way == "SIGINT" and done.returncode < 0 else code), done.stderr


@pytest.mark.parametrize("after", [1, 7])
def test_a_setter_that_fails_half_way(gpu, after):
    done, found = gpu(f"locked 0 300 900\nerror_after 0 nvmlDeviceSetGpuLockedClocks 999 {after}\n", "normal", "locked")
    assert found == LOCKED
    assert "MachineError: Tesla T4: NVML refused to set its clock or power limit (nvml_unknown)" in done.stderr


def test_settings_that_cannot_be_put_back_are_named_with_the_commands(gpu):
    done, _ = gpu("error 0 nvmlDeviceResetGpuLockedClocks 999 0 -1\n", "normal", "unlocked")
    assert "its clock or power limit could not be put back" in done.stderr
    gpu_0 = "nvidia-smi -i GPU-11111111-aaaa"
    assert f"Put the settings back by hand: {gpu_0} -rgc && {gpu_0} -pl 70" in done.stderr


def test_a_guardian_that_cannot_start_is_one_error(library, root, tmp_path, monkeypatch):
    (tmp_path / "scenario").write_text(T4)
    lost = subprocess.run(
        [sys.executable, "-m", "toolchain.meters.guardian", "GPU-2", "0", "0", "0"],
        env=os.environ
        | {"LD_LIBRARY_PATH": str(library.parent), "FAKENVML_SCENARIO": str(tmp_path / "scenario")}
        | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert (lost.returncode, lost.stdout, lost.stderr) == (1, '{"fault": "this machine has no GPU GPU-2"}', "")
    (tmp_path / "mute").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "mute").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "mute"))
    monkeypatch.setattr(guardian, "START_S", 0.01)
    device = SimpleNamespace(name="T4", uuid="GPU-1")
    with (
        pytest.raises(MachineError, match="did not start, so they are unchanged"),
        guardian.guarded(device, Settings(None, None)),
    ):
        pass


def test_without_the_right_nothing_is_set(gpu):
    done, found = gpu("administrator 0\n", "normal", "unlocked")
    assert found == UNLOCKED
    assert "NVML refused to set its clock or power limit (no_permission)" in done.stderr


@pytest.mark.stress
@pytest.mark.parametrize("number", range(200))
def test_200_exits_leave_the_first_settings(gpu, number):
    way, lock, _ = WAYS[number % len(WAYS)]
    fails = f"error_after 0 nvmlDeviceSetGpuLockedClocks 999 {number % 60 + 1}\n" if lock == "locked" else ""
    _, found = gpu(fails + ("locked 0 300 900\n" if lock == "locked" else ""), way, lock)
    assert found == (LOCKED if lock == "locked" else UNLOCKED)


@pytest.mark.parametrize(("mask", "is_one"), [("000001ffffffffff", True), ("00000000a80425fb", False), ("0", False)])
def test_an_administrator_has_cap_sys_admin(tmp_path, mask, is_one):
    (tmp_path / "status").write_text(f"Name:\tx\nCapPrm:\t{mask}\nCapEff:\t{mask}\n")
    assert is_administrator(tmp_path / "status") is is_one
    assert not is_administrator(tmp_path / "none")


def test_the_scripted_library_counts_setters(nvml: ScriptedNvml):
    from toolchain.meters.nvml import all_devices, open_nvml
    from toolchain.meters.settings import Settings, change, supported_clocks

    nvml.load(T4.replace("clock real\n", ""))
    with open_nvml():
        (gpu,) = all_devices()
        assert (supported_clocks(gpu)[0], supported_clocks(gpu)[-1], nvml.setter_calls()) == (300, 1590, 0)
        change(gpu, Settings((900, 900), 65_000))
        assert (nvml.settings(0), nvml.setter_calls()) == ((900, 900, 65_000), 2)
