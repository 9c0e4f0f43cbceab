"""A cascade of two models: the second one runs only the rows that the first one is not sure of.

The first stage is sure of a row if the margin of its two highest logits reaches a threshold.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch, Infer, Logits
from toolchain.heads.scores import margins

# The arguments of `open_runtime` that control how the runtime shares the processors. Both stages get the same values.
SHARING = ("threads", "callers", "spin")


@dataclass(frozen=True)
class FirstStage:
    """The first stage of a cascade: the function that opens its runtime, and its threshold.

    Rows whose margin is below the threshold are passed on to the second stage.
    """

    opener: Callable[..., AbstractContextManager[Infer]]
    threshold: float

    def open(self, choices: dict[str, Any]) -> AbstractContextManager[Infer]:  # Any: the arguments have different types
        """Open the runtime of the first stage. `choices` are the arguments of `open_runtime` for the second stage."""
        return self.opener(**{name: value for name, value in choices.items() if name in SHARING})


def in_stages(first: Infer, second: Infer, threshold: float) -> Infer:
    """Return an `infer` that runs `first` on a batch, and `second` on the rows that `first` is not sure of."""

    def infer(batch: Batch) -> Logits:
        logits = np.array(first(batch))
        rest = np.flatnonzero(passed_on(logits, threshold))
        if len(rest):
            logits[rest] = second(selected(batch, rest))
        return logits

    return infer


def passed_on(logits: Logits, threshold: float) -> NDArray[np.bool_]:
    """Return which rows the first stage passes on to the second, bool [rows]. Rows with NaN logits are among them."""
    return ~(margins(logits) >= threshold)


def selected(batch: Batch, rows: NDArray[np.int64]) -> Batch:
    """Return the given rows of a batch, without the positions at the end that are padding in all of these rows."""
    longest = int(batch["attention_mask"][rows].sum(axis=1).max())
    return {name: np.ascontiguousarray(values[rows, :longest]) for name, values in batch.items()}
