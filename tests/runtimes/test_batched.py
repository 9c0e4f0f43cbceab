"""Windows of a stream give the result of one pass over all rows, and at most two windows are in memory."""

import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.checkpoint.tokenize import Tokens
from toolchain.runtimes.batched import run, run_texts

texts = st.lists(
    st.lists(st.integers(1, 99), max_size=9).map(lambda row: (" ".join(map(str, row)),)), min_size=1, max_size=40
)


def encode(rows):
    ids = [[1, *map(int, text.split())] for (text,) in rows]
    return Tokens(
        {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}, {"input_ids": 7, "attention_mask": 0}
    )


def infer(batch):
    real = batch["input_ids"] * batch["attention_mask"]
    return np.stack([real.sum(axis=1), (real**2).sum(axis=1)], axis=1).astype(np.float32)


@given(texts, st.integers(1, 50), st.integers(1, 60))
def test_windows_give_each_row_the_logits_of_one_pass(rows, window, slots):
    found, expected = run_texts(infer, encode, iter(rows), max_slots=slots, window=window), run(infer, encode(rows))
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.lengths, [1 + len(text.split()) for (text,) in rows])


@given(texts, st.integers(1, 50))
def test_the_work_of_a_stream_is_the_sum_of_its_windows(rows, window):
    found = run_texts(infer, encode, rows, max_slots=20, window=window)
    parts = [run(infer, encode(rows[at : at + window]), max_slots=20) for at in range(0, len(rows), window)]
    assert found.slots == sum(part.slots for part in parts)
    assert found.pairs == sum(part.pairs for part in parts)
    assert found.batches == sum(part.batches for part in parts)


def test_at_most_two_windows_of_token_ids_are_in_memory():
    alive, counts, made = weakref.WeakValueDictionary(), [], threading.Semaphore(0)
    to_come = [2, *[1] * 8, 0]  # each window runs until the next has been made, which is the worst case

    def counted(rows):
        counts.append(len(alive) + 1)
        alive[len(counts)] = found = encode(rows)
        made.release()
        return found

    def slow(batch):
        for _ in range(to_come.pop(0)):
            made.acquire()
        return infer(batch)

    run_texts(slow, counted, [("1",)] * 100, window=10)
    assert len(counts) == 10
    assert max(counts) == 2


def test_texts_are_read_when_they_are_needed():
    read, seen = [], []
    texts = (read.append(row) or ("1",) for row in range(40))

    def watched(batch):
        seen.append(len(read))
        return infer(batch)

    run_texts(watched, encode, texts, window=10)
    assert seen == [20, 30, 40, 40]


def test_progress_counts_rows():
    done = []
    run_texts(infer, encode, [("1 2",)] * 10, max_slots=6, window=4, advance=done.append)
    assert done == [2, 2, 2, 2, 2]


def test_the_model_runs_in_the_calling_thread_and_the_tokenizer_in_another():
    threads = {"encode": set(), "infer": set()}

    def here(name, function):
        return lambda what: (threads[name].add(threading.current_thread()), function(what))[1]

    run_texts(here("infer", infer), here("encode", encode), [("1",)] * 9, window=2)
    assert threads["infer"] == {threading.current_thread()}
    assert threading.current_thread() not in threads["encode"]


def test_an_error_of_the_tokenizer_is_raised_unchanged():
    wrong = UnicodeError("no such character")

    def broken(rows):
        if rows[0] == ("3",):
            raise wrong
        return encode(rows)

    with pytest.raises(UnicodeError) as found:
        run_texts(infer, broken, [("1",), ("2",), ("3",), ("4",)], window=1)
    assert found.value is wrong


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_pass_that_is_stopped_leaves_no_thread(error):
    asked = []

    def counted(rows):
        asked.append(rows)
        return encode(rows)

    def stopped(batch):
        raise error

    before = threading.active_count()
    with pytest.raises(error):
        run_texts(stopped, counted, [("1",)] * 50, window=1)
    assert threading.active_count() == before
    assert len(asked) <= 2
