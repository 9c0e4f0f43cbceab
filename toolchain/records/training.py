"""What the records of `shrink` and `heal` have in common: the rows that were learnt from, and the training."""

from typing import TypedDict


class TrainingLoss(TypedDict):
    """The divergence of the logits plus the distance of the hidden states, each the mean over up to 16 steps."""

    first: float
    """At the beginning."""
    last: float
    """At the end."""


class Training(TypedDict):
    """Rows without their labels, and the steps of a training on them."""

    rows: int
    """Rows that were learnt from; their labels were not read."""
    rows_left_out: int
    """Rows that were not learnt from because they are evaluated."""
    data_sha256: str
    """Digest of the rows that were learnt from."""
    rows_seen: int
    """Rows of all steps together; 0 without training."""
    steps: int
    """Steps of training: --steps with this number gives the same weights."""
    seconds: float
    """Time of the steps."""
    seed: int
    """Seed of every random choice."""
