import mmap
import os
from pathlib import Path

import pytest

from tests.nvml.scripted import ScriptedNvml
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


def use(size: int) -> None:
    """Use memory that comes from the system: malloc would first give what it kept of freed memory, resident already."""
    mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def test_a_real_window_has_only_the_memory_used_within_it() -> None:
    if not memory._CLEAR.exists():
        pytest.skip("this system does not reset the peak of a process")
    meter, size, peaks = MemoryMeter(), 200_000_000, []
    use(2 * size)  # an earlier peak, which is larger
    for within in (0, size, 0):
        meter.start()
        use(within or mmap.PAGESIZE)
        peaks.append(meter.stop()["host"] or 0.0)
    before, most, after = peaks
    assert most - max(before, after) == pytest.approx(size / 1e6, rel=0.1)


T4 = "device 0 6 GPU-11111111-aaaa Tesla T4\npower 0 0 30000\n"


def started(nvml: ScriptedNvml, scenario: str, process: int) -> MemoryMeter:
    """Return a meter that takes its samples by hand, on a GPU that this process and another use."""
    memory.SAMPLE_S = 1e6
    nvml.load(f"{T4}{scenario}processes 0 1,{process}\n")
    meter = MemoryMeter("cuda:0")
    meter.start()
    return meter


def test_the_gpus_peak_is_the_largest_sample(nvml: ScriptedNvml) -> None:
    scenario = "process_memory 0 0 100000000\nprocess_memory 0 1000 700000000\nprocess_memory 0 2000 300000000\n"
    meter = started(nvml, scenario, os.getpid())
    for _ in range(3):
        meter.sample()
        nvml.advance(1)
    found = meter.stop()
    assert (found["device"], found["device_method"], found["device_reason"]) == (700, "nvml_samples", None)


@pytest.mark.parametrize(
    ("scenario", "listed", "reason"),
    [("", True, "not_supported"), ("process_memory 0 5\n", False, "process_not_seen")],
)
def test_memory_that_the_driver_does_not_report_is_null_with_the_reason(
    nvml: ScriptedNvml, scenario: str, listed: bool, reason: str
) -> None:
    found = started(nvml, scenario, os.getpid() if listed else 1).stop()
    assert (found["device"], found["device_reason"]) == (None, reason)


def test_without_nvml_there_is_no_figure_and_a_reason() -> None:
    meter = MemoryMeter("cuda:0")
    meter.start()
    found = meter.stop()
    if found["device"] is None:
        assert found["device_reason"] not in (None, "no_device_used")
    else:
        assert found["device"] > 0
