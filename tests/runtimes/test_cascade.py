"""A cascade of two functions: each row has the logits of the stage that answers it, and the second gets no other."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from toolchain.runtimes.cascade import in_stages, passed_on


def small(batch):
    sums = batch["input_ids"].sum(axis=1)
    return np.stack([sums, -sums], axis=1).astype(np.float32)


@given(
    arrays(np.int32, (5, 4), elements=st.integers(-3, 3)),
    st.lists(st.integers(1, 4), min_size=5, max_size=5),
    st.floats(0.5, 12.0),
)
def test_only_unsure_rows_reach_the_second_stage_without_their_common_padding(ids, lengths, threshold):
    mask = (np.arange(4) < np.array(lengths)[:, None]).astype(np.int32)
    batch, seen = {"input_ids": ids * mask, "attention_mask": mask}, []

    def big(batch):
        seen.append(batch)
        return 100 + small(batch)

    found = in_stages(small, big, threshold)(batch)
    first = small(batch)
    unsure = np.abs(first[:, 0] - first[:, 1]) < np.float32(threshold)
    np.testing.assert_array_equal(found, np.where(unsure[:, None], 100 + first, first))
    assert len(seen) == bool(unsure.any())
    for one in seen:
        assert one["input_ids"].shape == (unsure.sum(), max(np.array(lengths)[unsure]))


def test_logits_that_are_not_numbers_are_passed_on():
    assert passed_on(np.array([[np.nan, 0], [9, 0], [0, 9]], np.float32), 1.0).tolist() == [True, False, False]
