"""The load: its pieces, when it stops, and the count of its work over time."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.energy.load import Piece, Progress, arrivals, drive, pieces, shuffled


def piece(rows, length=16, tokens=None):
    return Piece({"input_ids": np.zeros((rows, length), np.int32)}, rows, tokens or rows * length // 2)


def test_pieces_count_rows_real_tokens_and_slots(tokens_of):
    tokens = tokens_of("distilbert", 10)
    found = pieces(tokens, [np.array([3, 1, 4]), np.array([5])])
    assert [one.rows for one in found] == [3, 1]
    for one in found:
        assert one.tokens == one.batch["attention_mask"].sum()
        assert one.slots == one.batch["attention_mask"].size


def test_every_pass_has_each_piece_once_in_another_order():
    items = [piece(rows) for rows in range(1, 30)]
    stream = shuffled(items, seed=3)
    passes = [[one.rows for one in itertools.islice(stream, 29)] for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(1, 30))
    assert passes[0] != passes[1]
    assert passes[0] == [one.rows for one in itertools.islice(shuffled(items, seed=3), 29)]


def test_arrivals_keep_the_rate_in_every_window_without_a_period():
    times = np.array(list(itertools.islice(arrivals(50, seed=1), 20_000)))
    in_window = [np.searchsorted(times, start + 5) - np.searchsorted(times, start) for start in range(300)]
    assert max(abs(count - 250) for count in in_window) <= 1
    gaps = np.diff(times) * 50
    assert gaps.std() == pytest.approx(np.sqrt(1 / 6), rel=0.03)  # of the difference of two even numbers from 0 to 1
    assert 0 < gaps.min() < gaps.max() < 2


@given(
    gaps=st.lists(st.floats(0.002, 0.5), min_size=3, max_size=50),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_work_between_two_moments_is_linear_within_a_call(gaps, shares):
    progress, times = Progress(), np.cumsum(gaps)
    progress.start(0.0)
    for number, moment in enumerate(times):
        progress.add(piece(number + 1), float(moment))
    opened, closed = sorted(share * times[-1] for share in shares)
    found = progress.between(opened, closed)

    def by(moment):
        """Return the rows done by a moment, summed call by call."""
        starts = np.concatenate([[0], times[:-1]])
        return sum(
            (number + 1) * np.clip((moment - starts[number]) / gaps[number], 0, 1) for number in range(len(gaps))
        )

    assert found.rows == pytest.approx(by(closed) - by(opened), abs=1e-6)
    assert found.slots == pytest.approx(16 * found.rows)
    assert found.calls == pytest.approx(progress.calls_by(closed) - progress.calls_by(opened), abs=1e-6)


def test_many_short_calls_are_all_counted_in_few_entries():
    progress = Progress()
    progress.start(0.0)
    for number in range(10_000):
        progress.add(piece(2), (number + 1) * 1e-5)
    assert progress.calls == 10_000
    assert progress.between(0, 0.1).rows == 20_000
    assert progress.between(0.05, 0.1).rows == pytest.approx(10_000, rel=0.02)
    assert len(progress.times_s) < 250


def test_the_load_runs_until_the_measurement_is_done():
    calls = []

    def measure(progress):
        while progress.calls < 25:
            threading.Event().wait(0.001)
        return "done"

    assert drive(lambda batch: calls.append(1), itertools.repeat(piece(4)), measure) == "done"
    assert len(calls) >= 25


def test_an_error_of_either_ends_both():
    cancelled = threading.Event()

    def fail(batch):
        raise ValueError("infer")

    with pytest.raises(ValueError, match="infer"):
        drive(fail, itertools.repeat(piece(1)), lambda progress: cancelled.wait(60), cancel=cancelled.set)
    assert cancelled.is_set()

    def wrong(progress):
        raise KeyError("measure")

    with pytest.raises(KeyError, match="measure"):
        drive(lambda batch: None, itertools.repeat(piece(1)), wrong)


def test_requests_run_when_they_are_due_and_delay_is_recorded():
    now, seen = [0.0], []

    def sleep(seconds):
        now[0] += seconds

    def infer(batch):
        seen.append(now[0])
        now[0] += 0.25

    def measure(progress):
        while progress.calls < 8:
            threading.Event().wait(0.001)
        return progress

    due = [1.0, 2.0, 2.1, 2.2, 2.3, 5.0, 6.0, 7.0]
    arriving = itertools.chain(due, itertools.count(1000, 1000))
    progress = drive(infer, itertools.repeat(piece(1)), measure, arriving=arriving, clock=lambda: now[0], sleep=sleep)
    assert seen[:8] == pytest.approx([1.0, 2.0, 2.25, 2.5, 2.75, 5.0, 6.0, 7.0])
    assert progress.late_s < 0
