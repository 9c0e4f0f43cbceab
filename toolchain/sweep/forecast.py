"""Estimate how long the waiting cells will take, from the times of cells that are done."""

from collections.abc import Sequence
from statistics import median

from toolchain.sweep.cells import Options

# The options of a command, and how many seconds it took.
Timed = tuple[Options, float]


def forecast(todo: Sequence[Options], done: Sequence[Timed]) -> float | None:
    """Return the expected total time of commands in seconds.

    A command is expected to take the median time of the finished commands that have the most options in common with it.
    The time is None if no command has finished, and 0 if none waits.
    """
    if not todo:
        return 0.0
    if not done:
        return None
    return sum(_expected(options, done) for options in todo)


def _expected(options: Options, done: Sequence[Timed]) -> float:
    alike = [sum(other.get(key) == value for key, value in options.items()) for other, _ in done]
    return median(seconds for same, (_, seconds) in zip(alike, done, strict=True) if same == max(alike))
