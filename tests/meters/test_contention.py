"""Contention: counters of threads from files, and those of this process."""

import pytest

from toolchain.meters.contention import ContentionMeter


def write(folder, **threads):
    for name, (ran, waited) in threads.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "schedstat").write_text(f"{ran} {waited} 7\n")


@pytest.mark.parametrize(("waited", "share", "busy"), [(0, 0.0, False), (10, 0.1, False), (270, 0.75, True)])
def test_the_share_is_of_all_threads_since_the_start(tmp_path, waited, share, busy):
    write(tmp_path, a=(1000, 500), ended=(5, 5))
    meter = ContentionMeter(tmp_path)
    meter.start()
    (tmp_path / "ended/schedstat").unlink()
    write(tmp_path, a=(1060, 500 + waited // 2), b=(30, waited - waited // 2))
    found = meter.stop()
    assert found["waiting_share"] == pytest.approx(share)
    assert found["busy"] is busy


def test_without_counters_nothing_is_claimed(tmp_path):
    meter = ContentionMeter(tmp_path / "none")
    meter.start()
    assert (meter.stop()["waiting_share"], meter.stop()["busy"]) == (None, False)


def test_this_process_is_counted():
    meter = ContentionMeter()
    meter.start()
    sum(range(3_000_000))
    share = meter.stop()["waiting_share"]
    assert share is None or 0 <= share < 1  # None where the system does not count
