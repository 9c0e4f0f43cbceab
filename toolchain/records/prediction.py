"""A prediction for one row, in the form of a `transformers` text-classification pipeline."""

from typing import TypedDict


class Prediction(TypedDict):
    """A label with its score."""

    label: str | None
    """Name of the class, from the checkpoint's `id2label`; null for regression."""
    score: float
    """Softmax probability of the class, 0 to 1; for regression, the predicted value."""
