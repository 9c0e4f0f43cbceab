import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.checkpoint.ragged import Ragged

rows = st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6), max_size=12)


@given(rows)
def test_it_holds_its_rows(lists: list[list[int]]) -> None:
    found = Ragged.of(lists)
    assert list(found) == lists
    assert found.lengths.tolist() == [len(row) for row in lists]


@given(rows.filter(bool), st.data())
def test_take_returns_the_rows_in_the_given_order(lists: list[list[int]], data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.integers(-len(lists), len(lists) - 1), max_size=20))
    assert list(Ragged.of(lists).take(np.array(asked, np.int64))) == [lists[index] for index in asked]


@given(rows, st.slices(12))
def test_it_is_sliced_like_a_list(lists: list[list[int]], part: slice) -> None:
    assert Ragged.of(lists)[part] == lists[part]


def test_ones_have_the_same_lengths() -> None:
    assert list(Ragged.of([[5, 6], [], [7]]).ones()) == [[1, 1], [], [1]]


def test_an_index_past_the_end_is_refused() -> None:
    with pytest.raises(IndexError):
        Ragged.of([[1]])[1]


def test_a_number_too_large_for_a_model_is_refused() -> None:
    with pytest.raises(OverflowError):
        Ragged.of([[2**31]])


@given(st.lists(rows, min_size=1, max_size=4))
def test_joined_holds_the_rows_of_all_parts(parts: list[list[list[int]]]) -> None:
    assert Ragged.joined([Ragged.of(part) for part in parts]) == [row for part in parts for row in part]
