"""The speed-up of one runtime over another, measured on the same rows in alternating passes."""

import statistics

from toolchain.base.progress import track
from toolchain.base.tensors import Infer
from toolchain.checkpoint.tokenize import Tokens
from toolchain.runtimes.batched import DEFAULT_SLOTS, run

# Timed passes of each runtime. The runtimes take turns, so that a change of the clock frequency or of other load
# affects both.
ROUNDS = 3


def speed_up(baseline: Infer, candidate: Infer, tokens: Tokens, *, max_slots: int = DEFAULT_SLOTS) -> float:
    """Return the speed-up of the candidate over the baseline, a ratio, on the same rows and without tokenization.

    It is the baseline's median time divided by the candidate's, over ROUNDS passes. Both first run the rows once
    without timing.
    """
    times: tuple[list[float], list[float]] = [], []
    for turn in track(range(ROUNDS + 1), total=ROUNDS + 1, text="timing against FP32"):
        for infer, own in zip((baseline, candidate), times, strict=True):
            seconds = run(infer, tokens, max_slots=max_slots).runtime_s
            if turn:
                own.append(seconds)
    return statistics.median(times[0]) / statistics.median(times[1])
