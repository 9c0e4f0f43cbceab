from hypothesis import given
from hypothesis import strategies as st

from toolchain.runtimes.buckets import bucket

SIZES = st.integers(1, 5000)


@given(SIZES, st.integers(1, 512))
def test_a_bucket_holds_its_batch_and_little_more(rows, length):
    deep, wide = bucket(rows, length)
    assert rows <= deep <= max(rows, rows * 9 / 8 + 1)
    assert length <= wide < length + 8
    assert wide % 8 == 0
    assert bucket(deep, wide) == (deep, wide)


def test_buckets_are_few():
    assert len({bucket(rows, 1)[0] for rows in range(1, 1025)}) <= 16 + 8 * 6


def test_no_length_exceeds_that_of_the_model():
    assert bucket(1, 97, longest=100) == (1, 100)
    assert bucket(1, 90, longest=100) == (1, 96)
    assert bucket(1, 103, longest=100) == (1, 103)  # the model refuses it
