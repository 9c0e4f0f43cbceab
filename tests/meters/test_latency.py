import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.meters.latency import measure_latency


class Clock:
    """A clock that moves only by `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def test_times_by_hand() -> None:
    clock = Clock()
    found = measure_latency(clock.advance, [0.001, 0.002, 0.003], clock=clock)
    assert found == pytest.approx({"mean": 2.0, "p50": 2.0, "p90": 2.8, "p95": 2.9, "p99": 2.98})


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_percentiles_are_numpy_s_in_milliseconds(seconds: list[float]) -> None:
    clock = Clock()
    found = measure_latency(clock.advance, seconds, clock=clock)
    expected = [np.mean(seconds), *np.percentile(seconds, (50, 90, 95, 99))]
    assert list(found.values()) == pytest.approx(np.array(expected) * 1e3, abs=1e-6)


def test_each_argument_is_called_once_in_order() -> None:
    called: list[int] = []
    measure_latency(called.append, range(5))
    assert called == list(range(5))


def test_time_between_calls_is_not_counted() -> None:
    clock = Clock()

    def arguments() -> object:
        for seconds in (0.5, 0.5):
            clock.advance(60)
            yield seconds

    assert measure_latency(clock.advance, arguments(), clock=clock)["mean"] == pytest.approx(500)  # type: ignore[arg-type]
