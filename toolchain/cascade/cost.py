"""The cost of a cascade: the time of both stages by that of the second one alone."""

import statistics
from dataclasses import dataclass

from toolchain.base.tensors import Infer
from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import GateError
from toolchain.evaluation.statistics import bootstrap_mean_ci95
from toolchain.runtimes.batched import run
from toolchain.runtimes.cascade import in_stages

# Rounds after one that warms up. The three take turns, so that a change of the clock or of other load affects all.
ROUNDS = 7


@dataclass(frozen=True)
class Cost:
    """The time of the first stage for all rows, and that of the cascade, by that of the second stage for all rows."""

    first: float
    ratio: float
    ci95: tuple[float, float]


def measure(first: Infer, second: Infer, threshold: float, tokens: Tokens, *, seed: int) -> Cost:
    """Return the cost on rows, means over interleaved rounds."""
    contenders = (first, second, in_stages(first, second, threshold))
    rounds = [[run(infer, tokens).runtime_s for infer in contenders] for _ in range(ROUNDS + 1)][1:]
    return of_rounds(rounds, seed=seed)


def of_rounds(rounds: list[list[float]], *, seed: int) -> Cost:
    """Return the cost of rounds of three times: of the first stage, the second, and both."""
    ratios = [both / second for _, second, both in rounds]
    first = statistics.fmean(first / second for first, second, _ in rounds)
    return Cost(first, statistics.fmean(ratios), bootstrap_mean_ci95(ratios, seed=seed))


def require(cost: Cost) -> None:
    """Refuse a cascade that takes as long as its second stage alone.

    Raises:
        GateError: with the share of each stage.
    """
    if cost.ratio >= 1:
        raise GateError(
            f"cascade: this cascade is slower than the second stage alone: {cost.first:.2f} for the first stage and "
            f"{cost.ratio - cost.first:.2f} for the rows that it passes on. Give a cheaper first stage, or a larger "
            "--max-drop."
        )
