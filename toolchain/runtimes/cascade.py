"""A cascade of two models: the second one runs only the rows of which the first one is not sure."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch, Infer, Logits
from toolchain.heads.scores import margins

# The arguments of `open_runtime` that say how a machine is shared; both stages take them.
SHARING = ("threads", "callers", "spin")


@dataclass(frozen=True)
class FirstStage:
    """The first stage: what opens it, and the margin of its two highest logits from which its answer counts."""

    opener: Callable[..., AbstractContextManager[Infer]]
    threshold: float

    def open(self, choices: dict[str, Any]) -> AbstractContextManager[Infer]:  # arguments of different types
        """Open it beside a second stage with these arguments of `open_runtime`."""
        return self.opener(**{name: value for name, value in choices.items() if name in SHARING})


def in_stages(first: Infer, second: Infer, threshold: float) -> Infer:
    """Return the function that runs a batch through the first stage, and its unsure rows through the second."""

    def infer(batch: Batch) -> Logits:
        logits = np.array(first(batch))
        rest = np.flatnonzero(passed_on(logits, threshold))
        if len(rest):
            logits[rest] = second(selected(batch, rest))
        return logits

    return infer


def passed_on(logits: Logits, threshold: float) -> NDArray[np.bool_]:
    """Return which rows the first stage passes on, bool [rows]; those whose logits are not numbers are among them."""
    return ~(margins(logits) >= threshold)


def selected(batch: Batch, rows: NDArray[np.int64]) -> Batch:
    """Return some rows of a batch, without the positions at the end that are padded in all of them."""
    longest = int(batch["attention_mask"][rows].sum(axis=1).max())
    return {name: np.ascontiguousarray(values[rows, :longest]) for name, values in batch.items()}
