"""The ratio of two runtimes' times, by an injected clock."""

import numpy as np
import pytest

from toolchain.checkpoint.tokenize import Tokens
from toolchain.evaluation.speed_up import speed_up


def test_it_is_the_ratio_of_the_median_times_after_a_warm_up(monkeypatch):
    now = 0.0
    monkeypatch.setattr("toolchain.runtimes.batched.time.perf_counter", lambda: now)

    def runtime(*seconds):
        left = iter(seconds)

        def infer(batch):
            nonlocal now
            now += next(left)
            return np.zeros((len(batch["input_ids"]), 2), np.float32)

        return infer

    rows = [[1, 2, 3], [4, 5, 6]]
    tokens = Tokens({"input_ids": rows, "attention_mask": rows}, {"input_ids": 0, "attention_mask": 0})
    assert speed_up(runtime(99, 4, 8, 6), runtime(77, 3, 2, 1), tokens) == pytest.approx(3.0)
