"""Points, scales and what the command line says of them."""

import itertools

import pytest

from toolchain.energy.clocks.points import AS_FOUND, Point, parse_clocks, parse_lock, scale, spread
from toolchain.errors import UsageError
from toolchain.meters.settings import Settings

CLOCKS = range(300, 1591, 15)


def test_coarse_points_span_the_range_evenly():
    found = [one.sm_mhz for one in scale(CLOCKS, None).coarse(8)]
    assert (found[0], found[-1], len(found)) == (300, 1590, 8)
    gaps = {later - one for one, later in itertools.pairwise(found)}
    assert max(gaps) - min(gaps) <= 15
    assert spread([Point(1), Point(2)], 8) == [Point(1), Point(2)]


def test_fine_points_lie_halfway_to_the_neighbours_that_were_tried():
    its = scale(range(0, 101, 10), (60_000, 70_000))
    assert its.fine(Point(50), [Point(10), Point(50), Point(90)]) == [Point(30), Point(70)]
    assert its.fine(Point(10), [Point(10), Point(50)]) == [Point(30)]
    assert its.fine(Point(50), [Point(40), Point(50), Point(60)]) == []
    assert its.fine(AS_FOUND, [Point(50)]) == []
    limits = [Point(power_limit_mw=watts * 1000) for watts in (60, 65, 70)]
    assert [one.name for one in its.fine(limits[1], limits)] == ["62 W", "67 W"]


def test_a_point_changes_one_setting():
    first = Settings((300, 900), 65_000)
    assert Point(600).of(first) == Settings((600, 600), 65_000)
    assert Point(power_limit_mw=60_000).of(first) == Settings((300, 900), 60_000)
    assert AS_FOUND.of(first) == first


def test_clocks_and_locks_of_the_command_line():
    assert parse_clocks("600,900", CLOCKS) == [Point(600), Point(900)]
    assert (parse_lock("900"), parse_lock("300,900")) == ((900, 900), (300, 900))
    for text in ("x", "900,300", "1,2,3", "0"):
        with pytest.raises(UsageError, match=f"--locked {text}: not a clock"):
            parse_lock(text)
    with pytest.raises(UsageError, match=r"does not support 601 MHz\. The nearest is 600 MHz"):
        parse_clocks("601", CLOCKS)
    with pytest.raises(UsageError, match="'fast' is not a clock"):
        parse_clocks("fast", CLOCKS)
