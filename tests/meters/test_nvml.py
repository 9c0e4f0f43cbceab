"""NVML through the real nvidia-ml-py on a scripted libnvidia-ml (tests/nvml), in processes of their own."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from toolchain.meters.nvml import Unavailable, open_nvml

T4 = "device 0 6 GPU-11111111-aaaa Tesla T4\n"
TWO = f"{T4}device 1 4 GPU-22222222-bbbb Tesla P4\n"
PRELUDE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
library.fakenvml_advance_us.argtypes = [ctypes.c_uint64]
assert library.fakenvml_load(sys.argv[2].encode()) == 0
def advance(seconds): library.fakenvml_advance_us(round(seconds * 1e6))
from toolchain.meters.nvml import Unavailable, all_devices, open_nvml, visible_devices
def reason(call, *arguments):
    try:
        call(*arguments)
    except Unavailable as why:
        return why.reason
"""


@pytest.fixture(scope="session")
def library(root, tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        assert "CI" not in os.environ
        pytest.skip("no C compiler to build the scripted libnvidia-ml with")
    made = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    options = ["-O2", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-lpthread"]
    subprocess.run([compiler, *options, "-o", str(made), str(root / "tests/nvml/fakenvml.c")], check=True)
    return made


@pytest.fixture
def run(library, root, tmp_path):
    """Run a snippet in a process in which NVML answers as a scenario says."""

    def go(scenario, code, **environment):
        script = tmp_path / "scenario"
        script.write_text(f"clock manual\n{scenario}")
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(library), str(script)],
            env=os.environ | environment | {"PYTHONPATH": str(root)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return go


def test_counter_and_power_are_the_boards(run):
    run(
        f"{T4}base_mj 0 5000\nupdate_ms 0 100\npower 0 0 30000\npower 0 2000 68000\n",
        """
        with open_nvml():
            (gpu,) = all_devices()
            assert (gpu.name, gpu.uuid, gpu.is_mig()) == ("Tesla T4", "GPU-11111111-aaaa", False)
            assert (gpu.energy_mj(), gpu.power_mw()) == (5000, 30000)
            advance(3)
            assert (gpu.energy_mj(), gpu.power_mw()) == (5000 + 60_000 + 68_000, 68000)
        """,
    )


@pytest.mark.parametrize(
    ("scenario", "code", "reason"),
    [("no_counter 0\n", "gpu.energy_mj", "not_supported"),
     ("error 0 nvmlDeviceGetTotalEnergyConsumption 4 0 -1\n", "gpu.energy_mj", "no_permission"),
     ("error 0 * 15 1000 -1\n", "gpu.energy_mj", "gpu_lost"), ("error 0 * 15 1000 -1\n", "gpu.power_mw", "gpu_lost"),
     ("error_after 0 nvmlDeviceGetTotalEnergyConsumption 999 0\nerror 0 nvmlDeviceGetTotalEnergyConsumption 999 0 -1\n",
      "gpu.energy_mj", "nvml_unknown"),
     ("error 0 nvmlDeviceGetFieldValues 3 0 -1\nerror 0 nvmlDeviceGetPowerUsage 3 0 -1\n", "gpu.power_mw",
      "not_supported")],
)  # fmt: skip
def test_each_fault_has_its_reason_and_gives_no_number(run, scenario, code, reason):
    snippet = f"""
    with open_nvml():
        (gpu,) = all_devices()
        advance(2)
        assert reason({code}) == {reason!r}
    """
    run(f"{T4}power 0 0 30000\n{scenario}", snippet)


def test_an_old_driver_without_field_values_gives_power_all_the_same(run):
    scenario = f"{T4}power 0 0 30000\nerror 0 nvmlDeviceGetFieldValues 13 0 -1\n"
    run(scenario, "with open_nvml():\n    assert all_devices()[0].power_mw() == 30000")


@pytest.mark.parametrize(("code", "reason"), [(9, "driver_not_loaded"), (18, "driver_mismatch"), (77, "nvml_77")])
def test_no_session_without_a_driver(run, code, reason):
    run(f"init_error {code}\n", f"assert reason(open_nvml().__enter__) == {reason!r}")


def test_no_gpu_is_a_reason(run):
    run("", "with open_nvml():\n    assert reason(all_devices) == 'no_device'")


@pytest.mark.parametrize(
    ("chosen", "order", "found"),
    [("0", "", "ambiguous_index"), ("1", "PCI_BUS_ID", [1]), ("1,0", "PCI_BUS_ID", [1, 0]),
     ("GPU-2222", "", [1]), ("GPU-11111111-aaaa,GPU-2", "", [0, 1]), ("GPU-2,9,GPU-1", "", [1]),
     ("", "", "no_device"), ("-1", "", "no_device"), ("MIG-1234", "", "mig_shared"), ("GPU-", "", "no_device")],
)  # fmt: skip
def test_gpus_are_those_that_cuda_shows(run, chosen, order, found):
    code = f"""
    with open_nvml():
        if isinstance({found!r}, str):
            assert reason(visible_devices) == {found!r}
        else:
            assert [gpu.index for gpu in visible_devices()] == {found!r}
    """
    run(TWO, code, CUDA_VISIBLE_DEVICES=chosen, CUDA_DEVICE_ORDER=order)


def test_without_the_library_it_says_so():
    with pytest.raises(Unavailable, match=r"^no_nvml_library"), open_nvml():
        pytest.skip("this machine has NVIDIA's driver")
