"""The cost of a cascade: its run time, divided by the run time of the second stage alone."""

import statistics
from dataclasses import dataclass

from toolchain.base.tensors import Infer
from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import GateError
from toolchain.evaluation.statistics import bootstrap_mean_ci95
from toolchain.runtimes.batched import run
from toolchain.runtimes.cascade import in_stages

# Number of measured rounds, after one round to warm up. Each round runs the first stage, the second stage and the
# cascade once, so that a change of the clock or of other load affects all three.
ROUNDS = 7


@dataclass(frozen=True)
class Cost:
    """Run times on all rows, each divided by the run time of the second stage alone.

    `first` is the time of the first stage, `ratio` that of the cascade, and `ci95` the 95 % confidence interval of
    `ratio`.
    """

    first: float
    ratio: float
    ci95: tuple[float, float]


def measure(first: Infer, second: Infer, threshold: float, tokens: Tokens, *, seed: int) -> Cost:
    """Time the first stage, the second stage and the cascade in interleaved rounds, and return the mean cost."""
    contenders = (first, second, in_stages(first, second, threshold))
    rounds = [[run(infer, tokens).runtime_s for infer in contenders] for _ in range(ROUNDS + 1)][1:]
    return of_rounds(rounds, seed=seed)


def of_rounds(rounds: list[list[float]], *, seed: int) -> Cost:
    """Return the mean cost. Each round has three times: of the first stage, the second stage, and the cascade."""
    ratios = [both / second for _, second, both in rounds]
    first = statistics.fmean(first / second for first, second, _ in rounds)
    return Cost(first, statistics.fmean(ratios), bootstrap_mean_ci95(ratios, seed=seed))


def require(cost: Cost) -> None:
    """Refuse a cascade that is not faster than its second stage alone.

    Raises:
        GateError: the cascade is not faster. The message has the relative time of each stage.
    """
    if cost.ratio >= 1:
        raise GateError(
            f"cascade: it is not faster than the second stage alone. Of the second stage's time on all rows, "
            f"the first stage takes {cost.first:.0%}, and the second stage on the rows passed on to it takes "
            f"{cost.ratio - cost.first:.0%}. Give a faster first stage, or a larger --max-drop."
        )
