"""RAPL from a folder of files: the zones that are added up, and joules across wraps."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.meters.rapl import ABSENT, PERMISSION, Counter, Zone, find_zones

RANGE = 262_143_328_850


@pytest.fixture
def zone(tmp_path):
    """Return a function that makes a zone's folder."""

    def make(folder, name, energy_uj, range_uj=RANGE):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for file, value in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", range_uj)):
            (place / file).write_text(f"{value}\n")
        return place

    return make


def names(root):
    return {(found.component, found.name) for found in find_zones(root)[0]}


def test_packages_and_their_memory_count_and_nothing_else(zone, tmp_path):
    for folder, name, energy in (
        ("intel-rapl:0", "package-0", 1),
        ("intel-rapl:0:0", "core", 2),
        ("intel-rapl:0:1", "uncore", 3),
        ("intel-rapl:0:2", "dram", 4),
        ("intel-rapl:1", "package-1", 5),
        ("intel-rapl:1:0", "dram", 6),
        ("intel-rapl:2", "psys", 7),
        ("intel-rapl-mmio:0", "package-0", 8),
        ("intel-rapl-mmio:0:0", "dram", 9),
    ):
        zone(folder, name, energy)
    assert names(tmp_path) == {
        ("cpu_package", "package-0"),
        ("cpu_package", "package-1"),
        ("cpu_dram", "intel-rapl:0 dram"),
        ("cpu_dram", "intel-rapl:1 dram"),
    }


def test_dies_that_show_one_counter_count_once(zone, tmp_path):
    zone("intel-rapl:0", "package-0-die-0", 123_456)
    zone("intel-rapl:1", "package-0-die-1", 123_456)
    zone("intel-rapl:2", "package-1-die-0", 123_457)
    assert names(tmp_path) == {("cpu_package", "package-0-die-0"), ("cpu_package", "package-1-die-0")}


def test_a_mirror_is_recognised_though_it_moves_between_two_readings(zone, tmp_path, monkeypatch):
    zone("intel-rapl:0", "package-0-die-0", 1)
    zone("intel-rapl:1", "package-0-die-1", 1)
    numbers = itertools.count(1)
    monkeypatch.setattr(Zone, "read_uj", lambda self: 1000 + next(numbers) // 4)  # both: it moves every four readings
    assert names(tmp_path) == {("cpu_package", "package-0-die-0")}


def test_absence_and_permission_have_different_reasons(zone, tmp_path, monkeypatch):
    assert find_zones(tmp_path / "nothing") == ([], ABSENT)
    zone("intel-rapl:0", "psys", 1)
    assert find_zones(tmp_path) == ([], ABSENT)
    zone("intel-rapl:1", "package-0", 1)

    def refuse(self):
        raise PermissionError

    monkeypatch.setattr(Zone, "read_uj", refuse)  # root may read everything, so modes would not do
    assert find_zones(tmp_path) == ([], PERMISSION)


def test_a_zone_that_reads_nonsense_is_ignored(zone, tmp_path):
    zone("intel-rapl:0", "package-0", "not a number")
    zone("intel-rapl:1", "package-1", 1, range_uj="")
    assert find_zones(tmp_path) == ([], ABSENT)


@given(start=st.integers(0, RANGE - 1), steps=st.lists(st.integers(0, RANGE - 1), max_size=20))
def test_joules_add_up_across_wraps(tmp_path_factory, start, steps):
    folder = tmp_path_factory.mktemp("zone")
    (folder / "energy_uj").write_text(str(start))
    counter = Counter(Zone("cpu_package", "package-0", folder, RANGE))
    value = start
    for step in steps:
        value = (value + step) % RANGE
        (folder / "energy_uj").write_text(str(value))
        counter.update()
    assert counter.total_uj == sum(steps)
    assert counter.joules == pytest.approx(sum(steps) / 1e6)
