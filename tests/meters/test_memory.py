from pathlib import Path

import pytest

from toolchain.meters import Meter, memory
from toolchain.meters.memory import MemoryMeter


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc/self of our own."""
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "clear_refs")
    return tmp_path


def test_it_is_a_meter() -> None:
    meter: Meter = MemoryMeter()
    assert meter


def test_the_peak_is_in_megabytes_of_a_million_bytes(proc: Path) -> None:
    (proc / "status").write_text("VmPeak:\t 999999 kB\nVmHWM:\t  500000 kB\nVmRSS:\t 1 kB\n")
    assert MemoryMeter().stop() == {"host": 512.0, "device": None}


def test_start_resets_the_kernel_s_mark(proc: Path) -> None:
    MemoryMeter().start()
    assert (proc / "clear_refs").read_text() == "5"


def test_what_cannot_be_read_is_null_and_what_cannot_be_reset_is_no_error(proc: Path) -> None:
    (proc / "clear_refs").mkdir()
    MemoryMeter().start()
    assert MemoryMeter().stop() == {"host": None, "device": None}
    (proc / "status").write_text("Name:\tpython\n")
    assert MemoryMeter().stop() == {"host": None, "device": None}


def test_a_real_window_sees_what_was_used_within_it_only() -> None:
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
