"""The counters in the form of Triton's statistics."""

from toolchain.serve.counters import Counters, Times


def test_every_request_adds_to_the_sums():
    counters = Counters(clock=lambda: 0)
    counters.count_success(3, 5000, Times(1000, 2000, 1500, 500))
    counters.count_success(1, 7999, Times(1000, 2000, 1500, 500))
    counters.count_failure("REJECTED", 40)
    counters.executions = 1
    found = counters.statistics("demo", "1")
    assert (found["inference_count"], found["execution_count"]) == (4, 1)
    stats = found["inference_stats"]
    assert stats["success"] == {"count": 2, "ns": 12999}
    assert stats["fail"] == {"count": 1, "ns": 40}
    assert stats["compute_input"] == {"count": 2, "ns": 4000}
    assert counters.failures == {"OTHER": 0, "REJECTED": 1, "CANCELED": 0, "BACKEND": 0}
