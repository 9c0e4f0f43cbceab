"""Places for clients: who gives way when all are taken."""

import pytest

from toolchain.serve.limits import SPARE_PLACES
from toolchain.serve.places import Places, network


class Client:
    ended = False

    def hang_up(self):
        self.ended = True


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def places(clock):
    return Places(4, clock=lambda: clock[0])


def enter(places, count, host="10.0.0.{}"):
    clients = [Client() for _ in range(count)]
    assert all(places.enter(client, host.format(number)) for number, client in enumerate(clients))
    return clients


def test_the_client_that_is_silent_longest_gives_way_and_none_at_work(places):
    first, *rest = enter(places, 4)
    places.work(rest[0])
    places.wait(first)  # it was answered, so it is silent since now
    late = enter(places, 2, "10.0.1.{}")
    assert [client.ended for client in (first, *rest, *late)] == [False, False, True, True, False, False]


def test_places_are_kept_when_all_are_at_work(places):
    for number, client in enumerate(enter(places, 4)):
        assert places.working == number
        places.work(client)
    for number in range(SPARE_PLACES):
        (spare,) = enter(places, 1, f"10.0.2.{number}")
        assert places.is_spare(spare)
        places.work(spare)
    assert not places.enter(Client(), "10.0.3.1")


def test_a_client_in_a_spare_place_moves_to_one_that_is_free(places):
    working = enter(places, 4)
    for client in working:
        places.work(client)
    (spare,) = enter(places, 1, "10.0.4.1")
    places.leave(working[0])
    assert not places.is_spare(spare)


def test_one_address_has_three_quarters_of_the_places(places):
    clients = enter(places, 4, "10.0.0.1")
    assert [client.ended for client in clients] == [True, False, False, False]
    assert enter(places, 1, "10.0.0.2")
    assert len(places) == 4


def test_a_client_that_is_silent_for_too_long_is_ended(places, clock):
    first, second, third = enter(places, 3)
    clock[0] = 10.0
    places.wait(second)
    places.work(third)
    places.hang_up_silent(5.0)
    assert [client.ended for client in (first, second, third)] == [True, False, False]
    assert len(places) == 2


def test_the_silent_give_way_until_what_all_take_is_small_enough(places):
    small, first, second, spared = enter(places, 4)
    sizes = {small: 0, first: 5, second: 5, spared: 5}
    places.make_room(spared, 15, sizes.__getitem__)
    assert not any(client.ended for client in sizes)
    places.wait(first)  # it has read and asked again: it is silent since now
    places.make_room(spared, 10, sizes.__getitem__)
    places.make_room(spared, 10, sizes.__getitem__)
    assert [client.ended for client in sizes] == [False, False, True, False]
    places.make_room(spared, 0, sizes.__getitem__)
    assert [client.ended for client in sizes] == [False, True, True, False]


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a:b", "a:b"),
    ],
)
def test_an_ipv6_address_counts_by_its_network(host, found):
    assert network(host) == found
