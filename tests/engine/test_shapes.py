"""A chosen profile holds its batch, and options that describe no profile are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.engine.shapes import Profile, choose_profile, make_profiles, parse_triple
from toolchain.errors import InputError, UsageError
from toolchain.graph.plugin_graph import pack_batch
from toolchain.runtimes.buckets import padded

MOST = 128
triples = st.lists(st.integers(1, 40), min_size=3, max_size=3).map(lambda numbers: tuple(sorted(numbers)))
buckets = st.lists(st.integers(1, MOST), min_size=1, max_size=5, unique=True).map(sorted)


@st.composite
def profiled(draw):
    """Profiles, and a batch that the largest of them takes: rows of any length on the right of which is padding."""
    rows = ",".join(map(str, draw(triples)))
    if draw(st.booleans()):
        profiles = make_profiles(rows, None, ",".join(map(str, draw(buckets))), max_length=MOST)
    else:
        profiles = make_profiles(rows, ",".join(map(str, draw(triples))), None, max_length=MOST)
    size = draw(st.integers(1, profiles[-1].batch[2]))
    longest = profiles[-1].length[2]
    lengths = np.array(draw(st.lists(st.integers(1, longest), min_size=size, max_size=size)))
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int32)
    return profiles, {"input_ids": mask * 7, "attention_mask": mask}


def fits(shape, triple):
    least, _, most = triple
    return len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))


@given(profiled())
def test_the_smallest_profile_that_holds_a_batch_is_chosen(made):
    profiles, batch = made
    rows, length = batch["input_ids"].shape
    index = choose_profile(profiles, rows=rows, length=length)
    ends = [profile.length[2] for profile in profiles]
    assert ends[index] == min(end for end in ends if end >= length)


@given(profiled())
def test_a_batch_padded_to_a_profile_fits_it_and_keeps_its_values(made):
    profiles, batch = made
    rows, length = batch["input_ids"].shape
    profile = profiles[choose_profile(profiles, rows=rows, length=length)]
    deep, wide = max(rows, profile.batch[0]), max(length, profile.length[0])
    shapes = profile.padded(list(batch))
    for name, array in batch.items():
        larger = padded(name, array, deep, wide)
        assert fits(larger.shape, shapes[name])
        np.testing.assert_array_equal(larger[:rows, :length], array)
        assert larger.sum() - array.sum() == (deep - rows if name == "attention_mask" else 0)
    assert (padded("attention_mask", batch["attention_mask"], deep, wide).sum(axis=1) > 0).all()


@given(profiled())
def test_a_packed_batch_fits_its_profile_however_short_its_rows_are(made):
    profiles, batch = made
    rows, length = batch["input_ids"].shape
    inputs = pack_batch(batch)
    shapes = profiles[choose_profile(profiles, rows=rows, length=length)].packed(list(inputs))
    assert shapes.keys() == inputs.keys()
    for name, array in inputs.items():
        assert fits(array.shape, shapes[name]), (name, array.shape, shapes[name])


def test_a_row_that_no_profile_takes_is_refused_with_the_option():
    with pytest.raises(InputError, match=r"1 rows of 33 tokens .at most 32 tokens per row.*--seq-len or --buckets"):
        choose_profile([Profile((1, 1, 8), (1, 16, 32))], rows=1, length=33)


def test_options_become_profiles():
    assert make_profiles(None, None, None, max_length=32) == [Profile((1, 32, 128), (1, 32, 32))]
    assert make_profiles("4", "8,16,32", None, max_length=64) == [Profile((4, 4, 4), (8, 16, 32))]
    assert [one.length for one in make_profiles(None, None, "16,64", max_length=64)] == [(1, 16, 16), (17, 64, 64)]
    assert Profile((1, 2, 3), (4, 5, 6)).to_json() == {"batch": [1, 2, 3], "length": [4, 5, 6]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("1,x,3", None, None), "--batch-size 1,x,3: this is not a list of whole numbers"),
        (("0", None, None), "--batch-size 0: this is not a list of whole numbers above 0"),
        (("3,2,1", None, None), "not MIN,OPT,MAX in rising order"),
        (("1,2", None, None), "not MIN,OPT,MAX"),
        ((None, "1,2,129", None), "--seq-len 1,2,129: the model takes at most 128"),
        ((None, None, "16,16"), "the lengths must rise"),
        ((None, None, "16,256"), "--buckets 16,256: the model takes at most 128"),
        ((None, "8", "16"), "both state lengths"),
        ((None, None, ""), "not a list of whole numbers"),
        (("-1,1,1", None, None), "not a list of whole numbers"),
    ],
)
def test_options_that_describe_no_profile_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        make_profiles(*options, max_length=MOST)


def test_a_missing_triple_is_the_default():
    assert parse_triple("batch-size", None, (1, 2, 3)) == (1, 2, 3)
