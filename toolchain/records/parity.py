"""The parity of a graph with its checkpoint, as `bundle.json` and the steps of a build record it."""

from typing import TypedDict


class ParityRecord(TypedDict):
    """Differences of a graph's logits from those of the checkpoint in PyTorch, float32."""

    rows: int
    """Number of rows that were compared."""

    max_abs_logit_difference: float
    """The largest |difference| of a logit."""

    label_agreement: float
    """Share of rows with the same label, 0 to 1."""

    largest_logit: float
    """The largest |logit| of the checkpoint."""

    finite: bool
    """Whether every logit of both is finite."""
