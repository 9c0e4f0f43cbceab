"""A call in a process of its own, and the ways in which such a process can end."""

import os
import signal

import pytest

from toolchain.accept.alone import call_alone
from toolchain.errors import MachineError, UsageError


def double(value):
    return 2 * value, os.getpid()


def end(*, code=None, number=None):
    if number:
        os.kill(os.getpid(), number)
    os._exit(code)


def by_signal():
    end(number=signal.SIGKILL)


def by_exit():
    end(code=3)


def test_the_value_comes_from_another_process():
    first, second = call_alone(double, 21), call_alone(double, [1])
    assert first[0] == 42
    assert second[0] == [1, 1]
    assert len({first[1], second[1], os.getpid()}) == 3


def refuse():
    raise UsageError("--this: not here.")


def test_what_the_function_raises_is_raised_here():
    with pytest.raises(UsageError, match="--this: not here"):
        call_alone(refuse)


@pytest.mark.parametrize(("function", "words"), [(by_signal, "SIGKILL"), (by_exit, "exit code 3")])
def test_a_process_that_ends_is_named_and_the_next_call_works(function, words):
    with pytest.raises(MachineError, match=words):
        call_alone(function)
    assert call_alone(double, 1)[0] == 2
