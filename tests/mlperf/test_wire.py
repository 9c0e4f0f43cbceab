"""Lists through a real pipe come out as they went in."""

import os
import threading
from array import array

import pytest

from toolchain.mlperf.wire import Inbox, send


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    os.close(ends[0])


def test_all_that_has_arrived_is_taken_at_once(pipe):
    for numbers in ([1, 2], [3, 2**64 - 1]):
        send(pipe[1], array("Q", numbers))
    inbox = Inbox(pipe[0])
    assert inbox.take().tolist() == [1, 2, 3, 2**64 - 1]
    os.close(pipe[1])
    assert not inbox.take()


def test_a_list_larger_than_the_pipe_comes_whole(pipe):
    numbers = array("Q", range(100_000))
    writer = threading.Thread(target=send, args=(pipe[1], numbers))
    writer.start()
    assert Inbox(pipe[0]).take() == numbers
    writer.join()
    os.close(pipe[1])


def test_half_a_list_is_waited_for_and_kept(pipe):
    whole = array("Q", [2, 7, 8]).tobytes() + array("Q", [1, 9]).tobytes()
    inbox = Inbox(pipe[0])
    os.write(pipe[1], whole[:30])  # the first list, and some of the second's length
    assert inbox.take().tolist() == [7, 8]
    os.write(pipe[1], whole[30:])
    assert inbox.take().tolist() == [9]
    os.close(pipe[1])
