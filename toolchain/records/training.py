"""The part that the records of `shrink` and `heal` share: the rows that a model learnt from, and its training."""

from typing import TypedDict


class TrainingLoss(TypedDict):
    """Training loss: divergence of the logits from those of the teacher model, plus distance of the hidden states.

    Each value is a mean over up to 16 steps.
    """

    first: float
    """Mean loss over the first steps."""
    last: float
    """Mean loss over the last steps."""


class Training(TypedDict):
    """The rows that a model learnt from, without their labels, and the number and duration of the training steps."""

    rows: int
    """Number of rows that the model learnt from. Their labels were not read."""
    rows_left_out: int
    """Number of train rows that were left out, because they are in the split to evaluate."""
    data_sha256: str
    """SHA-256 of the texts and labels of the rows that the model learnt from, hexadecimal."""
    rows_seen: int
    """Number of rows over all steps, repetitions included; 0 without training."""
    steps: int
    """Number of training steps; 0 without training. A run with this number as `--steps` gives the same weights."""
    seconds: float
    """Duration of the training steps, in seconds."""
    seed: int
    """Seed of all random choices."""
