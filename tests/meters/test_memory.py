from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.meters import Meter, memory
from toolchain.meters.memory import MemoryMeter

NO_DEVICE = {"device": None, "device_method": None, "device_reason": "no_device_used"}


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that stands in for /proc/self."""
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "clear_refs")
    return tmp_path


def test_the_memory_meter_meets_the_protocol() -> None:
    meter: Meter = MemoryMeter()
    assert meter


def test_the_peak_is_in_megabytes_of_a_million_bytes(proc: Path) -> None:
    (proc / "status").write_text("VmPeak:\t 999999 kB\nVmHWM:\t  500000 kB\nVmRSS:\t 1 kB\n")
    assert MemoryMeter().stop() == {"host": 512.0, **NO_DEVICE}


def test_start_resets_the_high_water_mark_of_the_kernel(proc: Path) -> None:
    MemoryMeter().start()
    assert (proc / "clear_refs").read_text() == "5"


def test_memory_that_cannot_be_read_is_null_and_a_mark_that_cannot_be_reset_is_not_an_error(proc: Path) -> None:
    (proc / "clear_refs").mkdir()
    MemoryMeter().start()
    assert MemoryMeter().stop() == {"host": None, **NO_DEVICE}
    (proc / "status").write_text("Name:\tpython\n")
    assert MemoryMeter().stop() == {"host": None, **NO_DEVICE}


def test_a_real_window_has_only_the_memory_used_within_it() -> None:
    meter, size = MemoryMeter(), 200_000_000
    meter.start()
    before = meter.stop()["host"]
    meter.start()
    block = bytearray(size)
    del block
    within = meter.stop()["host"]
    meter.start()
    after = meter.stop()["host"]
    if before is None or within is None or after is None:
        pytest.skip("there is no /proc/self/status here")
    assert within - before > 0.9 * size / 1e6
    if memory._CLEAR.exists():
        assert within - after > 0.9 * size / 1e6


T4 = "device 0 6 GPU-11111111-aaaa Tesla T4\npower 0 0 30000\n"
GPU = """
import os
from toolchain.meters import memory
memory.SAMPLE_S = 1e6  # by hand
from toolchain.meters.memory import MemoryMeter
with open(sys.argv[2], "a") as scenario:
    scenario.write(f"processes 0 1,{os.getpid()}\\n")
assert library.fakenvml_load(sys.argv[2].encode()) == 0
meter = MemoryMeter("cuda:0")
meter.start()
"""


def test_the_gpus_peak_is_the_largest_sample(run: Callable[..., None]) -> None:
    script = "process_memory 0 0 100000000\nprocess_memory 0 1000 700000000\nprocess_memory 0 2000 300000000\n"
    check = """
for _ in range(3):
    meter.sample()
    advance(1)
found = meter.stop()
assert (found["device"], found["device_method"], found["device_reason"]) == (700, "nvml_samples", None), found
"""
    run(T4 + script, GPU + check)


@pytest.mark.parametrize(
    ("script", "processes", "reason"),
    [("", "os.getpid()", "not_supported"), ("process_memory 0 5\n", "1", "process_not_seen")],
)
def test_memory_that_the_driver_does_not_report_is_null_with_the_reason(
    run: Callable[..., None], script: str, processes: str, reason: str
) -> None:
    check = f"found = meter.stop()\nassert (found['device'], found['device_reason']) == (None, {reason!r}), found"
    run(T4 + script, GPU.replace("os.getpid()", processes) + check)


def test_without_nvml_there_is_no_figure_and_a_reason() -> None:
    meter = MemoryMeter("cuda:0")
    meter.start()
    found = meter.stop()
    if found["device"] is None:
        assert found["device_reason"] not in (None, "no_device_used")
    else:
        assert found["device"] > 0
