"""The expected duration of the cells that wait, by those that are done."""

from collections.abc import Sequence
from statistics import median

from toolchain.sweep.cells import Options

# Options of a command and the seconds that it took.
Timed = tuple[Options, float]


def forecast(todo: Sequence[Options], done: Sequence[Timed]) -> float | None:
    """Return the expected seconds of commands: each takes the median of those that are most like it.

    None if nothing is done; 0 if there is nothing to do.
    """
    if not todo:
        return 0.0
    if not done:
        return None
    return sum(_expected(options, done) for options in todo)


def _expected(options: Options, done: Sequence[Timed]) -> float:
    alike = [sum(other.get(key) == value for key, value in options.items()) for other, _ in done]
    return median(seconds for same, (_, seconds) in zip(alike, done, strict=True) if same == max(alike))
